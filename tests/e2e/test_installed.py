"""The wheel as others install it: the names it takes, what works with torch alone, and a team's own code beside it."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from tests.architecture.test_rooms import IMPORT_ALL
from tests.support.served import Served, served, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
SITE = Path(sysconfig.get_paths()["purelib"])
DISTRIBUTION = ("LICENSE", "README.md", "pyproject.toml", "setup.py", "xsam_core", "services", "workers", "api")

# A team's project whose packages have the names that other services like to take.
PROJECT = {
    "api/__init__.py": "",
    "api/names.py": "CLASSES = ('dark', 'bright')\n",
    "services/__init__.py": "",
    "services/images.py": """
import torch
from api.names import CLASSES


class Brightness(torch.utils.data.Dataset):
    classes = CLASSES

    def __init__(self, size):
        generator = torch.Generator().manual_seed(size)
        self.targets = [i % 2 for i in range(size)]
        self.images = [torch.rand(1, 8, 8, generator=generator) * 0.5 + 0.5 * label for label in self.targets]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.targets[index]


def load(root):
    return Brightness(64), Brightness(32)
""",
    "workers/__init__.py": "",
    "workers/net.py": """
from torch import nn
from tests.widths import WIDTH


def build(*, num_classes, channels, image_size):
    first = nn.Linear(channels * image_size**2, WIDTH)
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Linear(WIDTH, num_classes))
""",
    "tests/__init__.py": "",
    "tests/widths.py": "WIDTH = 12\n",
}
JOB = {
    "epochs": 2,
    "batch_size": 16,
    "model": {"name": "custom", "target": "workers.net:build"},
    "dataset": {"name": "custom", "target": "services.images:load"},
    "optimizer": {"variant": "xsam", "rho": 0.05},
    "resources": {"num_workers": 2},
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built from a copy: a build leaves folders behind."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in DISTRIBUTION:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(out)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(copy)], check=True, cwd=out)
    (built,) = out.glob("*.whl")
    return built


class Environment:
    """A virtual environment that holds the wheel and sees chosen packages of the environment that runs the tests."""

    def __init__(self, path: Path, wheel: Path) -> None:
        venv.create(path, with_pip=False, symlinks=True)
        self.python = path / "bin" / "python"
        (self.site,) = path.glob("lib/python*/site-packages")
        command = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--no-deps", "--no-index"]
        subprocess.run([*command, "--quiet", str(wheel)], check=True)
        self.command = path / "bin" / "xsam"

    def see(self, folder: Path) -> None:
        """Let the environment import what lies in a folder."""
        (self.site / "beside.pth").write_text(f"{folder}\n")

    def run(self, *words: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
        """Run a command of the environment's."""
        return subprocess.run(words, capture_output=True, text=True, check=False, cwd=cwd, env=_bare_environment())


def test_wheel__takes_two_names_in_site_packages(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "venv", wheel)
    found = {path.name for path in environment.site.iterdir()}
    assert {name for name in found if not name.endswith(".dist-info")} == {"xsam", "xsam_core"}
    assert {path.name for path in (environment.site / "xsam").iterdir()} == {"services", "workers", "api", "sdk"}
    packages = {path.parent.relative_to(ROOT) for room in ("services", "workers", "api") for path in _python(room)}
    packages |= {Path("sdk")}
    installed = environment.site / "xsam"
    assert {path.parent.relative_to(installed) for path in installed.rglob("*.py")} == packages
    assert (installed / "services/db/migrations/script.py.mako").exists()


def test_api_image__has_all_that_the_api_imports_without_torch_or_ray(wheel: Path, tmp_path: Path) -> None:
    """The Dockerfile installs the `api` extra and our wheel, nothing else; here links stand for the packages."""
    environment = Environment(tmp_path / "venv", wheel)
    environment.see(_folder_with(_extra("api"), tmp_path / "api-packages"))
    missing = "import importlib.util as u; print(u.find_spec('torch'), u.find_spec('ray'), u.find_spec('sklearn'))"
    assert environment.run(str(environment.python), "-c", missing, cwd=tmp_path).stdout.split() == ["None"] * 3
    for room in ("services", "api"):
        imported = environment.run(str(environment.python), "-c", IMPORT_ALL, f"xsam.{room}", cwd=tmp_path)
        assert imported.returncode == 0, imported.stderr
    options = {"is_warmed": False, "python": environment.python, "environment": _bare_environment()}
    with served(tmp_path / "data", "--no-dispatcher", **options) as service:
        assert httpx.get(f"{service.url}/v1/jobs").json()["items"] == []


def test_library_with_torch_alone__works_and_the_command_names_the_extra(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "venv", wheel)
    environment.see(_folder_with(["torch"], tmp_path / "torch-alone"))
    program = (
        "import torch, xsam_core; w = torch.nn.Parameter(torch.ones(3)); "
        "o = xsam_core.XSAM([w], torch.optim.SGD, lr=0.1, rho=0.05); print(float(o.step(lambda: (w**2).sum())))"
    )
    trained = environment.run(str(environment.python), "-c", program, cwd=tmp_path)
    assert (trained.returncode, trained.stdout.strip()) == (0, "3.0"), trained.stderr
    refused = environment.run(str(environment.command), "list", cwd=tmp_path)
    assert refused.returncode == 1
    sentence = r"xsam needs the packages of its `service` extra \(\w+ is missing\): pip install 'xsam\[service\]'\n"
    assert re.fullmatch(sentence, refused.stderr)


@pytest.mark.e2e
@pytest.mark.ray
def test_project_with_packages_named_like_the_rooms__trains(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "venv", wheel)
    environment.see(SITE)
    project = tmp_path / "project"
    for name, text in PROJECT.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    variables = _bare_environment() | {
        "PYTHONPATH": str(project),
        "XSAM_TRAINING__ALLOWED_PACKAGES": '["workers", "services"]',
    }
    options = ("--num-cpus", "2")
    with served(
        tmp_path / "data", *options, is_warmed=False, python=environment.python, environment=variables
    ) as service:
        job_id = str(httpx.post(f"{service.url}/v1/jobs", json=JOB).raise_for_status().json()["id"])
        wait_until(lambda: _job(service, job_id)["state"] in {"succeeded", "failed"})
        job = _job(service, job_id)
    assert job["state"] == "succeeded", job


def _job(service: Served, job_id: str) -> dict[str, object]:
    answer: dict[str, object] = httpx.get(f"{service.url}/v1/jobs/{job_id}").raise_for_status().json()
    return answer


def _python(room: str) -> list[Path]:
    return list((ROOT / room).rglob("*.py"))


def _bare_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH" and not name.startswith("XSAM_")}


def _extra(name: str) -> list[str]:
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][name]
    return [_name(requirement) for requirement in requirements]


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def _folder_with(names: Sequence[str], folder: Path) -> Path:
    """Return a folder of links to distributions and all that they require, and nothing else."""
    folder.mkdir()
    known: dict[str, importlib.metadata.Distribution] = {}
    for name in names:
        _add_closure(name, known)
    for distribution in known.values():
        for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] not in {"..", "__pycache__"}}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(distribution.locate_file(top))))
    return folder


def _add_closure(name: str, known: dict[str, importlib.metadata.Distribution]) -> None:
    try:
        known[name] = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return  # a requirement of another platform
    for requirement in known[name].requires or []:
        if "extra ==" not in requirement and _name(requirement) not in known:
            _add_closure(_name(requirement), known)
