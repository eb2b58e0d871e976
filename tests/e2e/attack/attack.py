"""A script of one team that tries what it can to see and to harm another team's run on the same node."""

import ctypes
import json
import os
import signal
from pathlib import Path

from xsam.sdk import start

PTRACE_SEIZE = 0x4206


def read(path):
    with open(path, "rb") as file:
        return file.read(16)


def write(path):
    with open(path, "ab"):
        return True


def memory_of(pid):
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as memory:
        memory.seek(int(maps.readline().split("-")[0], 16))
        return memory.read(4)


def attach(pid):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(PTRACE_SEIZE, pid, None, None) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")
    return True


def signalled(pid, number):
    os.kill(pid, number)
    return True


def become_root():
    os.setuid(0)
    return True


def attacks(told):
    """Name each attempt; what ends the other run comes last."""
    found = {f"read {name}": lambda path=path: read(path) for name, path in told["files"].items()}
    found |= {f"list {name}": lambda path=path: os.listdir(path) for name, path in told["folders"].items()}
    found |= {
        f"write into {name}": lambda path=path: write(Path(path) / "planted") for name, path in told["folders"].items()
    }
    found["change its code"] = lambda: write(told["files"]["unpacked code"])
    for name, pid in told["processes"].items():
        found[f"read the environment of its {name}"] = lambda pid=pid: read(f"/proc/{pid}/environ")
        found[f"read the memory of its {name}"] = lambda pid=pid: memory_of(pid)
        found[f"signal its {name}"] = lambda pid=pid: signalled(pid, 0)
    found["become root"] = become_root
    found["attach to its rank"] = lambda: attach(told["processes"]["rank"])
    found["kill its rank"] = lambda: signalled(told["processes"]["rank"], signal.SIGKILL)
    return found


def main():
    run = start()
    outcome = {}
    for name, attempt in attacks(run.config).items():
        try:
            outcome[name] = bool(attempt())
        except OSError:
            outcome[name] = False
    run.report(step=1, epoch=1, loss=0.0)
    run.dir.mkdir(exist_ok=True)
    (run.dir / "outcome.json").write_text(json.dumps(outcome))


if __name__ == "__main__":
    main()
