"""Environments of a node: one for each lock, beside the base environment, whose packages it sees and never holds."""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import sysconfig
from importlib.metadata import version
from pathlib import Path

from xsam.workers.environments import uv
from xsam.workers.environments.store import EnvironmentStore
from xsam.workers.environments.uv import RequirementsError

WITHIN_S = 600.0
_MARKER = "xsam-ready.json"
_LINK = "_xsam_base.pth"


def environment_id(lock: str) -> str:
    """Return the name of a lock's environment here: other Pythons, platforms and versions of ours have their own."""
    parts = [lock, platform.python_version(), sysconfig.get_platform(), version("xsam"), uv.python()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def ready(lock: str, store: EnvironmentStore) -> Path | None:
    """Return the folder of a lock's packages, installed if they are not yet; None for an empty lock.

    Any number of processes may ask at once: one installs. It stays as long as a process that asked lives.

    Raises:
        RequirementsError: they can't be installed.
    """
    if not lock.strip():
        return None
    store.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    if store.root.stat().st_uid != os.getuid():
        raise RequirementsError(f"{store.root} belongs to another user; nothing is imported from there")
    name = environment_id(lock)
    folder = store.root / name
    # Never closed: an environment in use stays, and the lock ends with the process.
    held = _lock_file(store, name)
    try:
        is_new = _installed(lock, folder, store, held)
    except BaseException:
        os.close(held)
        raise
    os.utime(folder / _MARKER)
    if is_new:
        trim(store)
    return _packages(folder)


def _installed(lock: str, folder: Path, store: EnvironmentStore, held: int) -> bool:
    """Install what is not there, and keep others from deleting it; return whether it is new."""
    is_new = False
    fcntl.flock(held, fcntl.LOCK_SH)
    # Again where `trim` was quicker: between the two kinds of lock is a gap.
    while not (folder / _MARKER).exists():
        fcntl.flock(held, fcntl.LOCK_EX)
        if not (folder / _MARKER).exists():
            is_new = True
            _build(lock, folder, store.index)
        fcntl.flock(held, fcntl.LOCK_SH)
    return is_new


def trim(store: EnvironmentStore) -> list[str]:
    """Delete environments that no process uses, the longest unused first, down to the size; return their names."""
    by_age = sorted(store.root.glob(f"*/{_MARKER}"), key=lambda path: path.stat().st_mtime)
    sizes = {path.parent: int(json.loads(path.read_text())["size_bytes"]) for path in by_age}
    total, gone = sum(sizes.values()), []
    for folder, size in sizes.items():
        if total <= store.max_bytes:
            break
        held = _lock_file(store, folder.name)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (folder / _MARKER).unlink()  # first: what is half deleted is no environment
            shutil.rmtree(folder)
        except BlockingIOError:
            continue
        finally:
            os.close(held)
        total -= size
        gone.append(folder.name)
    return gone


def _lock_file(store: EnvironmentStore, name: str) -> int:
    return os.open(store.root / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)


def _build(lock: str, folder: Path, index: str | None) -> None:
    """Make the environment; without its marker, which comes last, it is none."""
    shutil.rmtree(folder, ignore_errors=True)
    made = uv.run(["venv", "--python", uv.python(), str(folder)], within_s=WITHIN_S, index=None)
    if made.returncode:
        raise RequirementsError(f"requirements: no environment can be made: {uv.sentence(made.stderr)}")
    asked = folder / "requirements.lock"
    asked.write_text(lock)
    options = ["--python", str(folder / "bin" / "python"), "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    done = uv.run(["pip", "install", *options, "-r", str(asked)], within_s=WITHIN_S, index=index)
    if done.returncode:
        raise RequirementsError(f"requirements: they can't be installed on this node: {uv.sentence(done.stderr)}")
    # Seen from the environment's own interpreter too, behind its packages: torch is not installed a second time.
    base = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    (_packages(folder) / _LINK).write_text("import site; " + "; ".join(f"site.addsitedir({one!r})" for one in base))
    size = sum(path.lstat().st_size for path in folder.rglob("*"))
    marker = folder / f".{_MARKER}"
    marker.write_text(json.dumps({"size_bytes": size}))
    marker.rename(folder / _MARKER)


def _packages(folder: Path) -> Path:
    (found,) = (folder / "lib").glob("python*/site-packages")
    return found
