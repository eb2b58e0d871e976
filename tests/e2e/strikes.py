"""What a storm strikes with: signals to every kind of process, and a disk that is full or does not answer.

A strike waits for its victim for a moment, since processes come and go, and says whether it hit.
"""

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from tests.support.postgres_server import PostgresServer
from tests.support.processes import descendants

FILE_SYSTEM_MIB = 192
LONGEST_STOP_S = 20.0
"""Longer than a lease: whoever is stopped for so long finds its work taken over."""
VICTIM_WITHIN_S = 20.0
_AT_WORK = ".run"
"""Ends the title of one of Ray's processes that has been told to run something."""
_TITLES = {
    "rank": "RankWorker",
    "runner": "JobRunner",
    "study runner": "StudyRunner",
    "dispatcher": "xsam.workers",
    "raylet": "raylet/raylet",
    "cluster control": "gcs_server",
}
_WEIGHTS = {
    "kill rank": 50,
    "kill runner": 40,
    "kill study runner": 16,
    "kill dispatcher": 4,
    "kill raylet": 3,
    "kill cluster control": 2,
    "kill PostgreSQL": 8,
    "kill PostgreSQL backend": 8,
    "stop rank": 20,
    "stop runner": 20,
    "stop study runner": 6,
    "stop dispatcher": 6,
    "stop raylet": 3,
    "stop cluster control": 3,
    "stop PostgreSQL": 4,
    "full disk": 10,
    "disk that waits": 10,
    "kill API": 2,
    "stop API": 4,
    "restart API": 2,
    "kill everything": 1,
}
"""How often each comes; those that end the whole cluster leave nothing to strike for as long as it starts again."""


class ArtifactDisk:
    """A file system of the artifacts' own, which can be filled and stopped; on Linux as root, else an ordinary folder.

    Args:
        folder: becomes its root.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.is_own = False

    @contextlib.contextmanager
    def mounted(self) -> Iterator[None]:
        """Have it for as long as the block runs."""
        self._folder.mkdir(parents=True)
        image = self._folder.with_name(f"{self._folder.name}.img")
        if os.geteuid() == 0:
            with image.open("wb") as file:
                file.truncate(FILE_SYSTEM_MIB << 20)
            made = subprocess.run(["mkfs.ext4", "-q", str(image)], check=False).returncode == 0
            mount = ["mount", "-o", "loop", str(image), str(self._folder)]
            self.is_own = made and subprocess.run(mount, check=False).returncode == 0
        try:
            yield
        finally:
            if self.is_own:
                subprocess.run(["umount", "--lazy", str(self._folder)], check=True)

    def be_full(self, seconds: float) -> None:
        """Take all that is free, for a while."""
        filler = self._folder / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
        time.sleep(seconds)
        filler.unlink()

    def stand_still(self, seconds: float) -> None:
        """Keep everybody waiting who writes, for a while."""
        subprocess.run(["fsfreeze", "--freeze", str(self._folder)], check=True)
        try:
            time.sleep(seconds)
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", str(self._folder)], check=True)


class Strikes:
    """Everything that can strike.

    Args:
        rng: of the storm's seed.
        api_pid: tells the API's process id as it is now.
        postgres: the service's database server.
        disk: the service's artifacts.
        restart: starts the API again, after it was killed (true) or in order.
        spared: kinds that never come.
    """

    def __init__(
        self,
        rng: random.Random,
        *,
        api_pid: Callable[[], int],
        postgres: PostgresServer,
        disk: ArtifactDisk,
        restart: Callable[[bool], None],
        spared: Collection[str] = (),
    ) -> None:
        self._rng = rng
        self._api_pid = api_pid
        self._postgres = postgres
        self._disk = disk
        self._restart = restart
        self._spared = spared
        self._stopped: list[tuple[float, list[int]]] = []
        self._rest: list[str] = []
        self._special: dict[str, Callable[[], bool | None]] = {
            "kill API": lambda: self._restart(True),
            "restart API": lambda: self._restart(False),
            "kill everything": self._kill_everything,
            "stop API": lambda: self._stop([self._api_pid()]),
            "kill PostgreSQL": self._kill_postgres,
            "kill PostgreSQL backend": lambda: self._signal_one(signal.SIGKILL, lambda: self._postgres.pids()[1:]),
            "stop PostgreSQL": lambda: self._stop(self._postgres.pids()),
            "full disk": lambda: self._disk.be_full(self._rng.uniform(0.5, 4.0)),
            "disk that waits": lambda: self._disk.stand_still(self._rng.uniform(0.5, 6.0)),
        }

    def draw(self) -> str:
        """Return the next strike's name: first each kind once, in an order of the seed's, then by weight."""
        if self._rest:
            return self._rest.pop()
        names = self._names()
        return self._rng.choices(names, [_WEIGHTS[name] for name in names])[0]

    def begin_with_each(self) -> None:
        """Have each kind drawn once before any is drawn again."""
        self._rest = self._names()
        self._rng.shuffle(self._rest)

    def try_again(self, name: str) -> None:
        """Have a kind drawn once more, after the others."""
        self._rest.insert(0, name)

    @property
    def has_rest(self) -> bool:
        """Whether some kinds are still to be drawn for the first time, or again."""
        return bool(self._rest)

    def strike(self, name: str) -> bool:
        """Strike; return whether it hit."""
        special = self._special.get(name)
        if special is not None:
            return special() is not False
        verb, _, victim = name.partition(" ")
        number = signal.SIGKILL if verb == "kill" else signal.SIGSTOP
        return self._signal_one(number, lambda: self._below(_TITLES[victim]))

    @property
    def has_stopped(self) -> bool:
        """Whether any process stands still."""
        return bool(self._stopped)

    def let_go_on(self, now: float) -> None:
        """Let stopped processes go on whose time has come."""
        for entry in list(self._stopped):
            if entry[0] <= now:
                self._stopped.remove(entry)
                for pid in entry[1]:
                    _send(pid, signal.SIGCONT)

    def _names(self) -> list[str]:
        kinds = [name for name in _WEIGHTS if name not in self._spared]
        return [name for name in kinds if self._disk.is_own or "disk" not in name]

    def _below(self, title: str) -> list[int]:
        """Return the processes of this title below the API; only those at work where there are any."""
        found = {pid: text for pid, text in descendants(self._api_pid()).items() if title in text}
        return [pid for pid, text in found.items() if text.endswith(_AT_WORK)] or list(found)

    def _kill_everything(self) -> None:
        for pid in [self._api_pid(), *descendants(self._api_pid())]:
            _send(pid, signal.SIGKILL)
        self._restart(True)

    def _kill_postgres(self) -> None:
        self._postgres.kill()
        time.sleep(self._rng.uniform(0.2, 3.0))
        self._postgres.start()

    def _signal_one(self, number: signal.Signals, found: Callable[[], list[int]]) -> bool:
        pid = self._victim(found)
        if pid is None:
            return False
        return self._stop([pid]) if number == signal.SIGSTOP else _send(pid, number)

    def _victim(self, found: Callable[[], list[int]]) -> int | None:
        """Return one of these processes as soon as there is one."""
        deadline = time.monotonic() + VICTIM_WITHIN_S
        while time.monotonic() < deadline:
            if pids := sorted(found()):
                return self._rng.choice(pids)
            self.let_go_on(time.monotonic())
            time.sleep(0.2)
        return None

    def _stop(self, pids: list[int]) -> bool:
        hit = [pid for pid in pids if _send(pid, signal.SIGSTOP)]
        self._stopped.append((time.monotonic() + self._rng.uniform(0.5, LONGEST_STOP_S), hit))
        return bool(hit)


def _send(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False  # it was faster
    return True
