"""Lines of a requirements file: which are taken, and what a lock is named."""

import hashlib
import re
import tomllib
from dataclasses import dataclass
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from xsam.services.errors import InvalidRequestError

MAX_CHARS = 600_000
MAX_LINES = 2000
FIELD = "requirements"
PIN = "-c"
"""Before `name==version`: which version is taken if the package is needed and the service has none."""
_COMMENT = re.compile(r"(^|\s)#.*$")
_HASH = re.compile(r"\s+--hash[= ](sha256:[0-9a-f]{64})(?=\s|$)")


@dataclass(frozen=True, slots=True)
class Line:
    """One requirement."""

    requirement: Requirement
    hashes: tuple[str, ...] = ()
    is_pin: bool = False
    """Whether it asks for nothing, but says which version is taken where it is needed."""

    @property
    def name(self) -> str:
        """The package's name in its canonical form."""
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str | None:
        """The one version that it names; None where it leaves it open."""
        specifiers = list(self.requirement.specifier)
        exact = len(specifiers) == 1 and specifiers[0].operator == "==" and not specifiers[0].version.endswith("*")
        return specifiers[0].version if exact else None

    @property
    def is_pinned(self) -> bool:
        """Whether it names one version and what its files must be."""
        return self.version is not None and bool(self.hashes)


def parse(text: str) -> list[Line]:
    """Return the requirements of a file.

    Raises:
        InvalidRequestError: a line is not a package's name with versions; names the line.
    """
    joined = text.replace("\\\r\n", " ").replace("\\\n", " ")
    lines = [_COMMENT.sub("", line).strip() for line in joined.splitlines()]
    lines = [line for line in lines if line]
    if len(lines) > MAX_LINES:
        raise InvalidRequestError(f"requirements has {len(lines):,} lines; allowed are {MAX_LINES:,}", FIELD)
    return [_parsed(line) for line in lines]


def check_locked(lines: list[Line]) -> None:
    """Refuse what leaves something open, where the operator takes locked requirements only.

    Raises:
        InvalidRequestError: a line names no single version, or no hash, and no pin does.
    """
    pinned = {line.name for line in lines if line.is_pin and line.is_pinned}
    for line in lines:
        if not line.is_pinned and line.name not in pinned:
            raise InvalidRequestError(
                f"requirements: {line.requirement} is not locked; this service takes name==version with --hash only "
                "(`uv pip compile --generate-hashes` writes such a file)",
                FIELD,
            )


def from_pylock(text: str) -> str:
    """Return a pylock.toml (`uv export --format pylock.toml`) as lines of a requirements file.

    Raises:
        InvalidRequestError: it is none.
    """
    try:
        packages = tomllib.loads(text)["packages"]
        return "".join(_pylock_line(package) for package in packages)
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as e:
        raise InvalidRequestError(f"requirements: this is no pylock.toml: {e!r}", FIELD) from e


def id_of(lock: str) -> str:
    """Return the name of a lock: the SHA-256 of its text."""
    return f"sha256:{hashlib.sha256(lock.encode()).hexdigest()}"


def packages_of(lock: str) -> list[str]:
    """Return `name==version` of each package of a lock."""
    return [line.split()[0] for line in lock.splitlines() if line.strip()]


def _parsed(line: str) -> Line:
    hashes = tuple(_HASH.findall(line))
    rest = _HASH.sub("", line).strip()
    is_pin = rest.startswith(f"{PIN} ")
    rest = rest.removeprefix(PIN).strip() if is_pin else rest
    if rest.startswith("-"):
        option = rest.split()[0].split("=")[0][:50]
        raise InvalidRequestError(
            f"requirements: the option {option} is not taken; allowed are names with versions, and the packages come "
            "from where the operator says",
            FIELD,
        )
    try:
        requirement = Requirement(rest)
    except InvalidRequirement as e:
        raise InvalidRequestError(
            f"requirements: {rest[:200]!r} is no package's name with versions, such as 'einops>=0.8'", FIELD
        ) from e
    if requirement.url is not None:
        raise InvalidRequestError(
            f"requirements: {requirement.name} is given by a URL; allowed are names with versions", FIELD
        )
    found = Line(requirement, hashes, is_pin)
    if is_pin and found.version is None:
        raise InvalidRequestError(f"requirements: {PIN} {requirement} names no single version (name==version)", FIELD)
    return found


def _pylock_line(package: dict[str, Any]) -> str:
    files = [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else [])]
    hashes = "".join(f" --hash=sha256:{file['hashes']['sha256']}" for file in files)
    marker = f" ; {package['marker']}" if package.get("marker") else ""
    return f"{package['name']}=={package['version']}{marker}{hashes}\n"
