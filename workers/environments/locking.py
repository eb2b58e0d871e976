"""A lock: what uv would install beyond this environment, with versions and hashes."""

import hashlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from xsam.services.errors import InvalidRequestError
from xsam.services.requirements import lines
from xsam.services.requirements.lines import Line
from xsam.workers.environments import uv
from xsam.workers.environments.uv import RequirementsError

WITHIN_S = 120.0
_ADDED = re.compile(r"^ \+ (\S+==\S+)$", re.MULTILINE)
_REPLACED = re.compile(r"^ - (\S+)==(\S+)$", re.MULTILINE)


def lock(text: str, *, index: str | None = None, must_be_locked: bool = False) -> str:
    """Return the lock of a requirements file: a line for each package that this environment does not have.

    Nothing of this environment may be replaced, and nothing is built: wheels only.

    Args:
        text: of the file.
        index: an index's address, or a folder of wheels.
        must_be_locked: whether the file itself must name every package.

    Raises:
        RequirementsError: they can't be had beside this environment; says which conflicts with what.
    """
    try:
        wanted = lines.parse(text)
    except InvalidRequestError as e:
        raise RequirementsError(e.message) from e
    base = uv.base_packages()
    _check_conflicts(wanted, base)
    added = _added(wanted, base, index)
    if must_be_locked:
        _check_complete(added, wanted)
    return "".join(f"{line}\n" for line in _with_hashes(added, wanted, index))


def _check_conflicts(wanted: Sequence[Line], base: Mapping[str, str]) -> None:
    for line in wanted:
        marker = line.requirement.marker
        there = base.get(line.name)
        if there is None or line.is_pin or (marker is not None and not marker.evaluate()):
            continue
        if not line.requirement.specifier.contains(there, prereleases=True):
            raise RequirementsError(
                f"requirements: {line.requirement} conflicts with the service's {line.name} {there}; remove the line"
            )


def _added(wanted: Sequence[Line], base: Mapping[str, str], index: str | None) -> list[str]:
    """Return `name==version` of what would be installed."""
    with tempfile.TemporaryDirectory(prefix="xsam-lock-") as folder:
        asked, pins = Path(folder) / "requirements.txt", Path(folder) / "base.txt"
        asked.write_text("".join(f"{line.requirement}\n" for line in wanted if not line.is_pin))
        own = [f"{line.requirement}\n" for line in wanted if line.is_pin and line.name not in base]
        pins.write_text("".join([*(f"{name}=={version}\n" for name, version in sorted(base.items())), *own]))
        options = ["--dry-run", "--python", uv.python(), "--break-system-packages", "--only-binary", ":all:"]
        done = uv.run(["pip", "install", *options, "-c", str(pins), "-r", str(asked)], within_s=WITHIN_S, index=index)
    if done.returncode:
        raise RequirementsError(f"requirements: {uv.sentence(done.stderr)}")
    replaced = _REPLACED.search(done.stderr)
    if replaced:
        raise RequirementsError(f"requirements: they would replace the service's {replaced[1]} {replaced[2]}")
    return sorted(_ADDED.findall(done.stderr))


def _check_complete(added: Sequence[str], wanted: Sequence[Line]) -> None:
    named = {line.name for line in wanted}
    missing = [one for one in added if canonicalize_name(one.partition("==")[0]) not in named]
    if missing:
        raise RequirementsError(
            f"requirements: {', '.join(missing)} would be installed as well, but is not locked; this service takes "
            "files that name every package"
        )


def _with_hashes(added: Sequence[str], wanted: Sequence[Line], index: str | None) -> list[str]:
    if not added:
        return []
    given = {(line.name, line.version): line.hashes for line in wanted if line.hashes}
    known = _hashes_of_wheels(Path(index)) if index is not None and Path(index).is_dir() else _hashes_of(added, index)
    locked: list[str] = []
    for one in added:
        name, _, version = one.partition("==")
        key = canonicalize_name(name), version
        hashes = given.get(key) or known.get(key)
        if not hashes:
            raise RequirementsError(f"requirements: the index names no hash of {one}, so it can't be locked")
        locked.append(" ".join([one, *(f"--hash={digest}" for digest in sorted(hashes))]))
    return locked


def _hashes_of(added: Sequence[str], index: str | None) -> dict[tuple[str, str], tuple[str, ...]]:
    with tempfile.TemporaryDirectory(prefix="xsam-lock-") as folder:
        asked = Path(folder) / "requirements.txt"
        asked.write_text("".join(f"{one}\n" for one in added))
        options = ["--no-deps", "--generate-hashes", "--no-header", "--no-annotate", "--only-binary", ":all:"]
        command = ["pip", "compile", *options, "--python", uv.python(), str(asked)]
        done = uv.run(command, within_s=WITHIN_S, index=index)
    if done.returncode:
        raise RequirementsError(f"requirements: {uv.sentence(done.stderr)}")
    found = lines.parse(done.stdout)
    return {(line.name, next(iter(line.requirement.specifier)).version): line.hashes for line in found}


def _hashes_of_wheels(folder: Path) -> dict[tuple[str, str], tuple[str, ...]]:
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for path in sorted(folder.glob("*.whl")):
        try:
            name, version, _, _ = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        found[name, str(version)] = (*found.get((name, str(version)), ()), digest)
    return found
