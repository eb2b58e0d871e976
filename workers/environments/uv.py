"""uv, and the environment that it must leave as it is: the one this process runs in."""

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from packaging.utils import canonicalize_name
from uv import find_uv_bin

SECRET_PREFIX = "XSAM_"  # noqa: S105 - the names' beginning
"""Variables of the service, the database's address among them: no program of others sees them."""


_PREFIXES = ("error: ", "cause: ", "\N{MULTIPLICATION SIGN} ", "╰─▶ ")


class RequirementsError(Exception):
    """Requirements that can't be had; the sentence is for whoever wrote them."""


def run(arguments: Sequence[str], *, within_s: float, index: str | None) -> "subprocess.CompletedProcess[str]":
    """Run uv on wheels alone, so that nothing of a package's own runs.

    Args:
        arguments: of `uv`.
        within_s: how long it may take.
        index: an index's address, or a folder of wheels; None is uv's default.

    Raises:
        RequirementsError: it took longer.
    """
    command = [find_uv_bin(), *arguments, "--no-config", "--no-progress", *from_index(index)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(SECRET_PREFIX)}
    try:
        return subprocess.run(  # noqa: S603 - our own words, and names that were parsed
            command, capture_output=True, text=True, check=False, timeout=within_s, env=environment
        )
    except subprocess.TimeoutExpired as e:
        raise RequirementsError(f"requirements: uv did not answer within {within_s:g} s") from e


def from_index(index: str | None) -> list[str]:
    """Return the options that say where packages come from."""
    if index is None:
        return []
    return ["--no-index", "--find-links", index] if Path(index).is_dir() else ["--index-url", index]


def base_packages() -> dict[str, str]:
    """Return the versions of all packages of this process's environment by canonical name."""
    found: dict[str, str] = {}
    for package in importlib.metadata.distributions():
        found.setdefault(canonicalize_name(package.name), package.version)
    return found


def python() -> str:
    """Return this process's interpreter."""
    return sys.executable


def sentence(text: str) -> str:
    """Return uv's words as one sentence, without its drawing."""
    told = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("Using Python")]
    for prefix in _PREFIXES:
        told = [line.removeprefix(prefix) for line in told]
    return " ".join(told)[:1000]
