import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
from uv import find_uv_bin

from tests.support.wheels import wheel
from xsam.services.requirements import lines
from xsam.services.requirements.uv_lock import from_uv_lock
from xsam.workers.environments import locking, uv
from xsam.workers.environments.uv import RequirementsError


@pytest.fixture
def index(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    wheel(folder, "tinyloss", needs=["numpy", "tinybase>=1"])
    wheel(folder, "tinybase", "1.1")
    wheel(folder, "tinybase", "2.0")
    wheel(folder, "oldtorch", needs=["torch<2"])
    return folder


def test_lock__names_what_is_missing_here_with_hashes(index: Path) -> None:
    locked = locking.lock("# ours\ntinyloss>=1.0  # the loss\ntinybase<2\nnumpy\n", index=str(index))
    assert lines.packages_of(locked) == ["tinybase==1.1", "tinyloss==1.0"], "numpy is the service's own"
    assert locked.count("--hash=sha256:") == 2
    assert locking.lock(locked, index=str(index), must_be_locked=True) == locked, "a lock locks to itself"


def test_lock__of_what_is_there_already_is_empty(index: Path) -> None:
    assert locking.lock("torch\nnumpy>=1\n", index=str(index)) == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("torch==2.4", f"torch==2.4 conflicts with the service's torch {version('torch')}; remove the line"),
        ("oldtorch", "oldtorch depend on torch<2 and torch=="),
        ("tinyloss==3", "tinyloss==3"),
        ("nowhere-to-be-found", "nowhere-to-be-found was not found"),
        ("-e .", "the option -e is not taken"),
        ("--index-url=https://example.org", "the option --index-url is not taken"),
        ("x @ https://example.org/x.whl", "x is given by a URL"),
        ("./wheels/x.whl", "is no package's name"),
    ],
)
def test_lock__says_what_conflicts(index: Path, text: str, told: str) -> None:
    with pytest.raises(RequirementsError, match="requirements: ") as caught:
        locking.lock(text, index=str(index))
    assert told in str(caught.value)


def test_lock__of_a_file_that_must_be_locked_leaves_nothing_out(index: Path) -> None:
    one = next(line for line in locking.lock("tinyloss", index=str(index)).splitlines() if "tinyloss" in line)
    with pytest.raises(RequirementsError, match=r"tinybase==2\.0 would be installed as well"):
        locking.lock(one, index=str(index), must_be_locked=True)


def uv_lock(tmp_path: Path, index: Path, *dependencies: str) -> str:
    """Return what `uv lock` writes for a project that somebody keeps in an environment of their own."""
    project = tmp_path / "project"
    project.mkdir()
    needs = ", ".join(f'"{one}"' for one in dependencies)
    text = f'[project]\nname = "acme"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = [{needs}]\n'
    (project / "pyproject.toml").write_text(text)
    wheel(index, "torch", "2.0", needs=["acme_cuda"])
    wheel(index, "numpy", "1.9")
    wheel(index, "acme_cuda")
    options = ["--no-index", "--find-links", str(index), "--no-config", "--offline"]
    command = [find_uv_bin(), "lock", *options, "--python", uv.python()]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    return (project / "uv.lock").read_text()


def test_uv_lock__keeps_its_versions_and_the_service_its_own(tmp_path: Path, index: Path) -> None:
    given = uv_lock(tmp_path, index, "tinyloss", "torch>=2", "tinybase<2")
    wheel(index, "tinyloss", "3.0")
    locked = locking.lock(from_uv_lock(given), index=str(index))
    assert lines.packages_of(locked) == ["tinybase==1.1", "tinyloss==1.0"]
    assert "torch==2.0" in from_uv_lock(given), "which the service has in another version, as it has numpy"


@pytest.mark.parametrize(
    ("dependencies", "told"),
    [
        (
            ["tinyloss", "torch<2.1"],
            f"torch<2.1 conflicts with the service's torch {version('torch')}; remove the line",
        ),
        (["oldtorch"], "torch<2.1 and torch=="),
    ],
)
def test_uv_lock__that_conflicts_is_told(tmp_path: Path, index: Path, dependencies: list[str], told: str) -> None:
    wheel(index, "oldtorch", needs=["torch<2.1"])
    with pytest.raises(RequirementsError, match="requirements: ") as caught:
        locking.lock(from_uv_lock(uv_lock(tmp_path, index, *dependencies)), index=str(index))
    assert told in str(caught.value)
