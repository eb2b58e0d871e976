import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.wheels import wheel
from xsam.workers.environments import building, locking
from xsam.workers.environments.store import EnvironmentStore
from xsam.workers.environments.uv import RequirementsError

_HOLD = """
import sys
from pathlib import Path
from xsam.workers.environments import building
from xsam.workers.environments.store import EnvironmentStore
root, index, lock = sys.argv[1:]
print(building.ready(Path(lock).read_text(), EnvironmentStore(Path(root), index, 0)), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def index(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    wheel(folder, "tinyloss", files={"tinyloss.py": "HALF = 0.5\n"})
    wheel(folder, "tinymore")
    return folder


def store_of(tmp_path: Path, index: Path, *, max_bytes: int = 10**9) -> EnvironmentStore:
    return EnvironmentStore(tmp_path / "environments", str(index), max_bytes)


def test_environment__holds_its_packages_and_sees_the_base(tmp_path: Path, index: Path) -> None:
    store = store_of(tmp_path, index)
    lock = locking.lock("tinyloss", index=str(index))
    packages = building.ready(lock, store)
    assert packages is not None
    installed = {path.name for path in packages.iterdir()}
    assert "tinyloss.py" in installed
    assert not any(name.startswith("torch") for name in installed), "torch is never installed twice"
    environment = packages.parents[2]
    code = "import importlib.util, tinyloss; print(tinyloss.HALF, importlib.util.find_spec('torch').origin)"
    done = subprocess.run([environment / "bin" / "python", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "0.5"
    assert sys.prefix in done.stdout
    made_at = (packages / "tinyloss.py").stat().st_ctime_ns
    assert building.ready(lock, store) == packages
    assert (packages / "tinyloss.py").stat().st_ctime_ns == made_at, "installed once"


def test_environment__that_was_not_finished_is_made_again(tmp_path: Path, index: Path) -> None:
    store = store_of(tmp_path, index)
    lock = locking.lock("tinyloss", index=str(index))
    half = store.root / building.environment_id(lock)
    half.mkdir(parents=True)
    (half / "rubbish").touch()
    packages = building.ready(lock, store)
    assert packages is not None
    assert (packages / "tinyloss.py").exists()
    assert not (half / "rubbish").exists()


def test_environment__of_other_bytes_than_were_locked_is_refused(tmp_path: Path, index: Path) -> None:
    lock = locking.lock("tinyloss", index=str(index))
    wheel(index, "tinyloss", files={"tinyloss.py": "print('another one')\n"})
    store = store_of(tmp_path, index)
    with pytest.raises(RequirementsError, match=r"can't be installed on this node: .*[Hh]ash"):
        building.ready(lock, store)
    with pytest.raises(RequirementsError, match="can't be installed on this node"):
        building.ready(lock, store)  # half an environment is none


def test_environments__go_by_last_use_and_never_under_a_process(tmp_path: Path, index: Path) -> None:
    store = store_of(tmp_path, index, max_bytes=0)
    held, more = (locking.lock(name, index=str(index)) for name in ("tinyloss", "tinymore"))
    (tmp_path / "lock").write_text(held)
    command = [sys.executable, "-c", _HOLD, str(store.root), str(index), str(tmp_path / "lock")]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = {one.stdout.readline() for one in both if one.stdout is not None}
    assert len(answers) == 1, "two processes at once get the same one"
    os.utime(store.root / building.environment_id(held) / "xsam-ready.json", (0, 0))
    assert building.trim(store) == [], "it is in use"
    for one in both:
        one.communicate(timeout=60)
    room = EnvironmentStore(store.root, str(index), 100_000)
    assert building.ready(more, room) is not None
    assert sorted(path.parent.name for path in store.root.glob("*/xsam-ready.json")) == [building.environment_id(more)]
