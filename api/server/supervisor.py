"""Keeps the dispatcher running as a child process: restarts it when it dies, stops it in order."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)

DISPATCHER = (sys.executable, "-m", "xsam.workers")
STOP_GRACE_S = 20.0
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
LARGEST_LOG_BYTES = 10_000_000
"""A longer one is put aside before the next start."""
STEADY_AFTER_S = 60.0
"""A child that lived so long was sound; its end is not a repeated failure to start."""


class Supervisor:
    """Runs one command and starts it again, after growing pauses, for as long as it is wanted.

    The child leads a session of its own: Ctrl-C in the terminal reaches only us, and we stop it in order.

    Args:
        command: what to run.
        environment: its whole environment.
        log_path: gets its output, appended.
        first_pause_s: pause before the first restart; it doubles each time.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        log_path: Path,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._log_path = log_path
        self._first_pause_s = first_pause_s
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    @property
    def pid(self) -> int | None:
        """The running child's process id."""
        child = self._child
        return child.pid if child is not None and child.returncode is None else None

    def start(self) -> None:
        """Start the child and watch over it."""
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        self._thread.start()

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Ask the child to end, wait, and kill whatever of it is left after `grace_s`."""
        with self._lock:
            self._stopping.set()
            child = self._child
        if child is not None:
            with suppress(ProcessLookupError):
                child.terminate()
            try:
                child.wait(grace_s)
            except subprocess.TimeoutExpired:
                logger.warning("the dispatcher did not end within %g s and is killed", grace_s)
            _kill_group(child.pid)
            child.wait()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        pause_s = self._first_pause_s
        while (child := self._spawn()) is not None:
            started_s = time.monotonic()
            code = child.wait()
            if self._stopping.is_set():
                return
            if time.monotonic() - started_s > STEADY_AFTER_S:
                pause_s = self._first_pause_s
            logger.error(
                "the dispatcher %s; starting it again in %g s (log: %s)", _ended(code), pause_s, self._log_path
            )
            if self._stopping.wait(pause_s):
                return
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        with self._lock:  # so that stop() either sees this child or prevents it
            if self._stopping.is_set():
                return None
            if self._log_path.exists() and self._log_path.stat().st_size > LARGEST_LOG_BYTES:
                self._log_path.replace(self._log_path.with_name(self._log_path.name + ".1"))
            with self._log_path.open("ab") as log:
                self._child = subprocess.Popen(  # noqa: S603 - the command is ours
                    self._command,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            return self._child


def _kill_group(leader_pid: int) -> None:
    with suppress(ProcessLookupError):  # all of it has ended already
        os.killpg(leader_pid, signal.SIGKILL)


def _ended(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
