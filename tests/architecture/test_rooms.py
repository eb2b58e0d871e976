"""The rooms and what they may know of each other, and the few rules of the house that a program can check."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("xsam_core", "services", "workers", "api")
LONGEST_FILE_LINES = 500
FORBIDDEN = {
    "xsam_core": {"xsam", "ray", "sqlalchemy", "fastapi", "pydantic"},
    "services": {"xsam_core", "xsam.workers", "xsam.api", "fastapi", "starlette", "ray", "torch", "uvicorn", "httpx"},
    "api": {"xsam_core", "xsam.workers", "ray", "torch", "torchvision", "sklearn"},
    "workers": {"xsam.api", "fastapi", "starlette", "uvicorn", "typer"},
}
# Modules that a process imports whole: every module of the room, so that a lazy corner can't hide an import.
IMPORT_ALL = """
import importlib, pkgutil, sys
room = importlib.import_module(sys.argv[1])
for found in pkgutil.walk_packages(room.__path__, room.__name__ + "."):
    if not found.name.endswith(("__main__", ".env")) and ".versions." not in found.name:
        importlib.import_module(found.name)
print(*{name.split(".")[0] for name in sys.modules}, *{name for name in sys.modules if name.startswith("xsam.")})
"""
_UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")


def _import_name(room: str) -> str:
    return room if room == "xsam_core" else f"xsam.{room}"


def _sources() -> list[Path]:
    return sorted(path for room in (*ROOMS, "tests") for path in (ROOT / room).rglob("*.py"))


def _modules_of(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", ["xsam_core", "services", "api", pytest.param("workers", marks=pytest.mark.slow)])
def test_room__imports_nothing_forbidden_in_a_fresh_interpreter(room: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, _import_name(room)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert FORBIDDEN[room] & set(done.stdout.split()) == set()


def test_actors__are_light_to_define() -> None:
    """Whoever gets a handle imports the class: a rank would load the database's tools, a runner torch."""
    code = "import sys, xsam.workers.actors; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert {"sqlalchemy", "pydantic", "torch", "optuna", "pandas", "sklearn"} & set(done.stdout.split()) == set()


def test_command__starts_without_what_only_the_service_needs() -> None:
    """`xsam list` knows the documents it shows, and none of the code that makes them."""
    code = "import sys, xsam.api.__main__, xsam.api.cli.jobs; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert {"scipy.stats", "optuna", "alembic", "fastapi", "uvicorn"} & set(done.stdout.split()) == set()


@pytest.mark.slow
def test_import_contracts__hold(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"]
    links = tmp_path / "xsam"
    links.mkdir()
    for room in ROOMS[1:]:
        (links / room).symlink_to(ROOT / room)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False, timeout=240)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("room", ROOMS)
def test_modules__import_at_the_top_only(room: str) -> None:
    """An import inside a function hides a dependency, except where `if TYPE_CHECKING` or `try` make it optional."""
    hidden = []
    for path in _modules_of(room):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                imports = [one for one in ast.walk(function) if isinstance(one, ast.Import | ast.ImportFrom)]
                hidden += [f"{path.relative_to(ROOT)}:{one.lineno}" for one in imports]
    assert hidden == []


@pytest.mark.parametrize("room", ["services", "workers", "api"])
def test_init_files__are_empty(room: str) -> None:
    """All but two: people write `from xsam.api.client import Client` and `from xsam.sdk import mean`."""
    told = [path for path in _modules_of(room) if path.name == "__init__.py" and path.read_text().strip()]
    known = {ROOT / "api/client/__init__.py", ROOT / "workers/sdk/__init__.py"}
    assert [path.relative_to(ROOT) for path in told if path not in known] == []


def test_only_settings__read_the_environment_in_services() -> None:
    readers = [
        path.name for path in _modules_of("services") if re.search(r"\bos\.(environ|getenv)\b", path.read_text())
    ]
    assert readers == ["settings.py"]


def test_files__stay_short() -> None:
    lengths = {path: len(path.read_text().splitlines()) for room in ROOMS for path in _modules_of(room)}
    assert {path.relative_to(ROOT): n for path, n in lengths.items() if n > LONGEST_FILE_LINES} == {}


def test_files__leave_nothing_unfinished() -> None:
    found = [path.relative_to(ROOT) for path in _sources() if _UNFINISHED.search(path.read_text())]
    assert found == [Path(__file__).relative_to(ROOT)]


def test_test_folders__are_packages() -> None:
    """With `__init__.py` in each, two test files may have the same name."""
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []
