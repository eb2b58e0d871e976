"""A PostgreSQL server of the test's own, so that it may be stopped and started; needs the server's programs."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.ports import free_port
from tests.support.processes import children

_USER = "postgres"


class PostgresServer:
    """A server in a scratch folder on a free loopback port."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._port = free_port()

    @property
    def url(self) -> str:
        """SQLAlchemy URL of its first database."""
        return f"postgresql+psycopg://{_USER}@127.0.0.1:{self._port}/postgres"

    def create(self) -> None:
        """Make the data folder."""
        self._run("initdb", "--auth=trust", f"--username={_USER}", f"--pgdata={self._folder}", "--no-sync")

    def start(self) -> None:
        """Start and wait until it answers."""
        options = f"-h 127.0.0.1 -p {self._port} -k {self._folder}"
        log = self._folder / "server.log"
        self._run("pg_ctl", f"--pgdata={self._folder}", f"--options={options}", f"--log={log}", "--wait", "start")

    def stop(self) -> None:
        """Stop at once, as if the machine had lost its power; recovery is left to the next start."""
        self._run("pg_ctl", f"--pgdata={self._folder}", "--mode=immediate", "--wait", "stop")

    def pids(self) -> list[int]:
        """Return the server's processes, the first of which started the others; none while it is down."""
        try:
            first = int((self._folder / "postmaster.pid").read_text().split("\n", 1)[0])
        except FileNotFoundError:
            return []
        return [first, *children(first)]

    def kill(self) -> None:
        """End all of its processes as if the machine had lost its power."""
        first = self.pids()[0]
        os.kill(first, signal.SIGSTOP)  # so that it starts no more of them
        doomed = self.pids()
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while any(Path(f"/proc/{pid}").exists() for pid in doomed):  # one that init has not reaped yet keeps the lock
            time.sleep(0.05)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        if os.geteuid() == 0:  # the server refuses to run as root
            command = ["runuser", "-u", _USER, "--", *command]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")


def find_programs() -> Path | None:
    """Return the folder of initdb and pg_ctl, or None where PostgreSQL is not installed."""
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@contextmanager
def postgres_server(programs: Path, folder: Path) -> Iterator[PostgresServer]:
    """Create and start a server; stop it afterwards."""
    folder.mkdir(parents=True)
    if os.geteuid() == 0:
        shutil.chown(folder, _USER)
        for parent in folder.parents:
            if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
    server = PostgresServer(programs, folder)
    server.create()
    server.start()
    try:
        yield server
    finally:
        server.stop()
