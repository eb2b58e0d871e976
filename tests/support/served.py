"""A real `xsam serve` in a process of its own, for benchmarks and end-to-end tests."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.ports import free_port
from xsam.services.db.session import Database

PATIENCE_S = 180.0
STOP_S = 40.0


@dataclass(frozen=True)
class Served:
    """A running service."""

    url: str
    data_dir: Path
    database: Database
    process: subprocess.Popen[bytes]


@contextmanager
def served(
    data_dir: Path,
    *options: str,
    database_url: str | None = None,
    is_warmed: bool = True,
    python: Path = Path(sys.executable),
    environment: Mapping[str, str] = os.environ,
) -> Iterator[Served]:
    """Start the service on a free port, wait until its processes are warm, and stop it in order afterwards."""
    running = start(
        data_dir, *options, port=free_port(), database_url=database_url, python=python, environment=environment
    )
    try:
        if "--no-dispatcher" in options:
            wait_for(running, "/healthz")
        else:
            wait_for(running, "/readyz")
            if is_warmed:
                _wait_warm(running)
        yield running
    finally:
        running.database.dispose()
        stop(running.process)


def start(
    data_dir: Path,
    *options: str,
    port: int,
    database_url: str | None = None,
    python: Path = Path(sys.executable),
    environment: Mapping[str, str] = os.environ,
) -> Served:
    """Start the service and return at once."""
    data_dir = data_dir.resolve()
    command = [str(python), "-m", "xsam.api", "serve", "--data-dir", str(data_dir), "--port", str(port), *options]
    named = {} if database_url is None else {"XSAM_DATABASE__URL": database_url}
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    # Not from the repository: its folders would be importable under their bare names there.
    process = subprocess.Popen(command, env={**environment, **named}, stdout=subprocess.DEVNULL, cwd=data_dir.parent)
    database = Database(database_url or f"sqlite:///{data_dir / 'xsam.db'}")
    return Served(f"http://127.0.0.1:{port}", data_dir, database, process)


def wait_until(condition: Callable[[], bool]) -> None:
    """Look several times a second, for as long as only a hang would take."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing happened within {PATIENCE_S:g} s")
        time.sleep(0.2)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the service as an operator would."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for(running: Served, path: str) -> None:
    """Wait until a path answers with success."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if running.process.poll() is not None:
            raise RuntimeError(f"the service ended with exit code {running.process.returncode}")
        try:
            if httpx.get(running.url + path).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise TimeoutError(f"{path} did not answer with success within {PATIENCE_S:g} s")


def _wait_warm(running: Served) -> None:
    """Run one small job: when it has succeeded, every kind of process has been used once."""
    body = {"name": "warm-up", "epochs": 1, "resources": {"num_workers": 2}}
    job_id = httpx.post(running.url + "/v1/jobs", json=body).raise_for_status().json()["id"]
    wait_until(lambda: httpx.get(f"{running.url}/v1/jobs/{job_id}").json()["state"] == "succeeded")
    time.sleep(1)
