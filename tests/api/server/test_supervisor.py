"""The supervisor with small real processes."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from xsam.api.server.supervisor import Supervisor

_WAIT_FOR_TERM = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("drained", flush=True), sys.exit(0)))
print("up", flush=True)
time.sleep(60)
"""
_DEAF = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
program = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
grandchild = subprocess.Popen([sys.executable, "-c", program])
print("grandchild", grandchild.pid, flush=True)
time.sleep(60)
"""


def _eventually(check: Callable[[], bool], within_s: float = 15) -> None:
    deadline_s = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.02)


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[[str], tuple[Supervisor, Callable[[], str]]]]:
    started = []

    def start(program: str) -> tuple[Supervisor, Callable[[], str]]:
        log_path = tmp_path / "logs" / "child.log"
        supervisor = Supervisor(
            [sys.executable, "-c", program], environment=os.environ, log_path=log_path, first_pause_s=0.05
        )
        started.append(supervisor)
        supervisor.start()
        return supervisor, lambda: log_path.read_text() if log_path.exists() else ""

    yield start
    for supervisor in started:
        supervisor.stop(grace_s=0)


def test_stop__lets_the_child_drain(supervise: Callable[..., tuple[Supervisor, Callable[[], str]]]) -> None:
    supervisor, log = supervise(_WAIT_FOR_TERM)
    _eventually(lambda: "up" in log())
    supervisor.stop(grace_s=10)
    assert log() == "up\ndrained\n"
    assert supervisor.pid is None


def test_stop__kills_a_deaf_child_and_what_it_started(
    supervise: Callable[..., tuple[Supervisor, Callable[[], str]]],
) -> None:
    supervisor, log = supervise(_DEAF)
    _eventually(lambda: "grandchild" in log())
    grandchild = int(log().split()[1])
    child = supervisor.pid
    assert child is not None
    supervisor.stop(grace_s=0.1)
    assert not _is_running(child)
    _eventually(lambda: not _is_running(grandchild))


def test_death__is_followed_by_a_restart_and_a_line_for_people(
    supervise: Callable[..., tuple[Supervisor, Callable[[], str]]], caplog: pytest.LogCaptureFixture
) -> None:
    supervisor, log = supervise(_WAIT_FOR_TERM)
    _eventually(lambda: log().count("up") == 1)
    first = supervisor.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    _eventually(lambda: log().count("up") == 2)
    assert supervisor.pid not in (None, first)
    assert "the dispatcher was killed by SIGKILL; starting it again in 0.05 s" in caplog.text


def test_repeated_death__waits_longer_each_time(
    supervise: Callable[..., tuple[Supervisor, Callable[[], str]]], caplog: pytest.LogCaptureFixture
) -> None:
    supervise("raise SystemExit(3)")
    _eventually(lambda: caplog.text.count("starting it again") >= 3)
    assert "ended with exit code 3; starting it again in 0.05 s" in caplog.text
    assert "starting it again in 0.2 s" in caplog.text


def test_stop__during_the_pause_starts_nothing(
    supervise: Callable[..., tuple[Supervisor, Callable[[], str]]], caplog: pytest.LogCaptureFixture
) -> None:
    supervisor, log = supervise("print('up')")
    _eventually(lambda: "starting it again" in caplog.text)
    supervisor.stop()
    seen = log().count("up")
    time.sleep(0.3)
    assert log().count("up") == seen
