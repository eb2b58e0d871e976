"""A project's uv.lock as lines of a requirements file: what the project asks for, and versions for all it needs."""

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from packaging.utils import canonicalize_name

from xsam.services.errors import InvalidRequestError
from xsam.services.requirements.lines import FIELD, PIN

_KNOWN_VERSION = 1
_LOCAL = ("virtual", "editable", "directory")
"""Sources of a project and of its workspace's members: their code is the job's, only what they need is installed."""
_ELSEWHERE = ("git", "url", "path")
_PROJECT = {"."}

Table = Mapping[str, Any]


def from_uv_lock(text: str) -> str:
    """Return the project's dependencies as it wrote them, and a pin for each package that the lock has from an index.

    Groups for development and extras are left out. A pin says which version is taken if the package is needed and the
    service has none; a dependency's own versions hold whoever has it.

    Raises:
        InvalidRequestError: it is none, or the project needs a package that is in no index.
    """
    try:
        document = tomllib.loads(text)
        if document["version"] != _KNOWN_VERSION:
            raise InvalidRequestError(
                f"requirements: uv.lock has version {document['version']}; version {_KNOWN_VERSION} is read, and what "
                "`uv export --format pylock.toml -o pylock.toml` writes",
                FIELD,
            )
        packages = document.get("package", [])
        needed = dict.fromkeys(line for one in _own(packages) for line in _needed(one))
        pins = dict.fromkeys(_pin(one) for one in packages if "registry" in one["source"])
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as e:
        raise InvalidRequestError(f"requirements: this is no uv.lock: {e!r}", FIELD) from e
    return "".join(f"{line}\n" for line in (*needed, *pins))


def _own(packages: list[Table]) -> list[Table]:
    """Return the project and those members of its workspace that it needs; all members where there is no project."""
    local = {one["name"]: one for one in packages if _is_local(one["source"])}
    waiting = [one for one in local.values() if _PROJECT & set(one["source"].values())] or list(local.values())
    found: dict[str, Table] = {}
    while waiting:
        one = waiting.pop()
        found[one["name"]] = one
        names = {edge["name"] for edge in one.get("dependencies", ())} - found.keys()
        waiting += [local[name] for name in sorted(names & local.keys())]
    return list(found.values())


def _needed(package: Table) -> Iterator[str]:
    for one in package.get("metadata", {}).get("requires-dist", ()):
        marker = one.get("marker", "")
        if _is_local(one) or "extra ==" in marker:
            continue
        elsewhere = next((kind for kind in _ELSEWHERE if kind in one), None)
        if elsewhere is not None:
            raise InvalidRequestError(
                f"requirements: uv.lock has {one['name']} from {elsewhere} {one[elsewhere]}; packages come from where "
                "the operator says, by name and version",
                FIELD,
            )
        extras = f"[{','.join(one['extras'])}]" if one.get("extras") else ""
        yield f"{canonicalize_name(one['name'])}{extras}{one.get('specifier', '')}{_marked(marker)}"


def _pin(package: Table) -> str:
    digests = sorted(wheel["hash"] for wheel in package.get("wheels", ()) if "hash" in wheel)
    marker = " or ".join(f"({one})" for one in package.get("resolution-markers", ()))
    hashes = "".join(f" --hash={digest}" for digest in digests)
    return f"{PIN} {package['name']}=={package['version']}{_marked(marker)}{hashes}"


def _marked(marker: str) -> str:
    return f" ; {marker}" if marker else ""


def _is_local(source: Table) -> bool:
    return any(kind in source for kind in _LOCAL)
