import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

_CHILD = """
import os, signal, time
from xsam.services.process import stop_with
stop_with(int(os.environ["PARENT"]))
print("watching", flush=True)
time.sleep(60)
"""
_PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], env={**os.environ, "PARENT": str(os.getpid())})
print(child.pid, flush=True)
time.sleep(60)
"""
_SECRET = "a-password"
_NOT_ROOT = """
import ctypes, os, sys, time
from xsam.services.process import hide_memory
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # the change of user has taken it away
"""
_VICTIM = """
if sys.argv[1] == "hidden":
    hide_memory()
print("ready", flush=True)
time.sleep(60)
"""
_THIEF = """
for name in ("environ", "mem"):
    try:
        with open(f"/proc/{sys.argv[1]}/{name}", "rb") as file:
            print(name, "read", b"a-password" in file.read(65536) if name == "environ" else True)
    except PermissionError:
        print(name, "refused")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can")
def test_hide_memory__refuses_it_and_the_environment_to_others_of_the_user() -> None:
    assert _stolen("open") == "environ read True\nmem read True\n"
    assert _stolen("hidden") == "environ refused\nmem refused\n"


def _stolen(kind: str) -> str:
    """Return what a process finds out about another of its user, who is not root."""
    environment = {**os.environ, "SECRET": _SECRET}
    options: dict[str, Any] = {"text": True, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", _NOT_ROOT + _VICTIM, kind], env=environment, **options) as victim:
        try:
            assert victim.stdout is not None
            assert victim.stdout.readline() == "ready\n"
            return subprocess.check_output([sys.executable, "-c", _NOT_ROOT + _THIEF, str(victim.pid)], text=True)
        finally:
            victim.kill()


def test_stop_with__ends_the_child_of_a_killed_parent() -> None:
    command = [sys.executable, "-c", _PARENT, _CHILD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert parent.stdout.readline() == "watching\n"
        assert Path(f"/proc/{child}").exists()
        parent.kill()
        parent.wait()
        deadline_s = time.monotonic() + 10
        while Path(f"/proc/{child}").exists():
            assert time.monotonic() < deadline_s, "the child outlived its parent"
            time.sleep(0.02)
