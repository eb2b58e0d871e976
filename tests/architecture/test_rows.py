"""Who writes what: rows of a domain in that domain's folder only, and a job's state by one way."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = ROOT / "services"
WRITERS = {"insert", "update", "delete", "upsert", "add_up", "insert_missing"}
STATE_DOORS = {("attempts.py", "_idle"), ("queue.py", "claim")}
"""The functions that name the column `state` in what they write: the one that leaves `running` and the one into it."""


def _sources() -> Iterator[Path]:
    for room in ("services", "workers", "api"):
        yield from (path for path in sorted((ROOT / room).rglob("*.py")) if "migrations" not in path.parts)


def _models() -> dict[str, str]:
    """Return the domain of each mapped class."""
    found = {}
    for path in SERVICES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            is_row = isinstance(node, ast.ClassDef) and "Base" in [getattr(base, "id", "") for base in node.bases]
            if is_row and any(isinstance(one, ast.Assign) and _names(one) == ["__tablename__"] for one in node.body):
                found[node.name] = path.relative_to(SERVICES).parts[0]
    return found


def _names(node: ast.Assign) -> list[str]:
    return [target.id for target in node.targets if isinstance(target, ast.Name)]


def _imported(tree: ast.Module, models: dict[str, str]) -> dict[str, str]:
    """Return the mapped classes that a module knows, by the name it uses, with their domain."""
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module)
    pairs = ((node.module or "", alias) for node in imports for alias in node.names)
    return {
        alias.asname or alias.name: models[alias.name]
        for module, alias in pairs
        if models.get(alias.name) is not None and module.startswith(f"xsam.services.{models[alias.name]}.")
    }


def foreign_writes(path: Path, source: str, models: dict[str, str]) -> list[str]:
    """Return the lines of a module that write rows of another domain than its folder's."""
    tree = ast.parse(source)
    here = path.relative_to(SERVICES).parts[0] if path.is_relative_to(SERVICES) else None
    foreign = {name for name, domain in _imported(tree, models).items() if domain != here}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_write(node, foreign):
            found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
        stores = isinstance(node, ast.Attribute) and node.attr == "state" and isinstance(node.ctx, ast.Store)
        if stores and "Job" in foreign and not _is_own(node):
            found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def _is_write(call: ast.Call, foreign: set[str]) -> bool:
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", None)
    if isinstance(call.func, ast.Name) and name in foreign:
        return True
    return name in WRITERS and any(isinstance(one, ast.Name) and one.id in foreign for one in call.args)


def _is_own(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"


def test_rows__are_written_in_their_own_domain() -> None:
    models = _models()
    assert {"Job", "JobAttempt", "Study", "Trial", "QueueView", "UsageShare"} <= set(models)
    found = [line for path in _sources() for line in foreign_writes(path, path.read_text(), models)]
    assert list(found) == []


@pytest.mark.parametrize(
    "line",
    [
        "session.execute(update(Job).values(priority=1))",
        "session.add(Job(team='red'))",
        "upsert(session, Job, [], keys=())",
        "session.execute(sqlalchemy.delete(Job))",
        "job.state = 'queued'",
    ],
)
def test_rows__a_foreign_write_is_seen(line: str) -> None:
    source = f"from xsam.services.jobs.models import Job\n\n{line}\n"
    assert foreign_writes(SERVICES / "studies" / "new.py", source, _models()) == ["services/studies/new.py:3"]
    assert foreign_writes(ROOT / "workers" / "new.py", source, _models()) == ["workers/new.py:3"]
    assert foreign_writes(SERVICES / "jobs" / "new.py", source, _models()) == []


def test_states__are_written_by_the_doors_that_read_the_table() -> None:
    """A `state` among the columns of a write, outside them, would pass the table by."""
    found = set()
    for path in sorted((SERVICES / "jobs").glob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and any(_writes_state(node) for node in ast.walk(function)):
                found.add((path.name, function.name))
    assert found == STATE_DOORS


def _writes_state(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and getattr(node.func, "attr", None) == "values":
        return any(keyword.arg == "state" for keyword in node.keywords)
    if isinstance(node, ast.Attribute) and node.attr == "state" and isinstance(node.ctx, ast.Store):
        return True
    return isinstance(node, ast.Dict) and "state" in [getattr(key, "value", None) for key in node.keys]
