import os
import subprocess
import sys
import time
from pathlib import Path

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
