"""Which files of a folder are left out of a bundle: ignore files as git reads them, and what looks like a secret."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

IGNORE_FILES = (".gitignore", ".xsamignore")
ALWAYS_OUT = ("/.git", ".venv/", "venv/", "__pycache__/", "*.pyc", "node_modules/", ".mypy_cache/", ".pytest_cache/")
SECRETS = (
    *(".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*"),
    *(".netrc", ".npmrc", ".pypirc", "credentials", "credentials.json", ".aws/", ".ssh/", ".kube/", ".docker/"),
)
"""Names that usually hold passwords or keys. An ignore file can bring one back in: `!name`."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of an ignore file.

    Args:
        folder: where the file lies, below the bundle's root.
        pattern: matches paths below that folder.
        is_folder_only: the line ends in `/`.
        is_kept: the line begins with `!`.
    """

    folder: PurePosixPath
    pattern: re.Pattern[str]
    is_folder_only: bool
    is_kept: bool

    @classmethod
    def parse(cls, line: str, folder: PurePosixPath) -> Self | None:
        """Return the rule of a line, None for a comment or an empty one."""
        text = line.rstrip("\r\n").rstrip(" ")
        if not text or text.startswith("#"):
            return None
        is_kept = text.startswith("!")
        text = text[1:] if is_kept else text
        is_folder_only = text.endswith("/")
        text = text.rstrip("/")
        is_anchored = "/" in text
        text = text.lstrip("/")
        prefix = "" if is_anchored else "(?:.*/)?"
        return cls(folder, re.compile(prefix + _translated(text)), is_folder_only, is_kept)

    def matches(self, path: PurePosixPath, *, is_folder: bool) -> bool:
        """Return whether the rule is about a path below the bundle's root."""
        if (self.is_folder_only and not is_folder) or not path.is_relative_to(self.folder):
            return False
        return self.pattern.fullmatch(path.relative_to(self.folder).as_posix()) is not None


def rules_of(lines: Sequence[str], folder: PurePosixPath) -> list[Rule]:
    """Return the rules of an ignore file that lies in a folder."""
    return [rule for line in lines if (rule := Rule.parse(line, folder)) is not None]


def read_rules(root: Path, folder: PurePosixPath) -> list[Rule]:
    """Return the rules of the ignore files in one folder."""
    found: list[Rule] = []
    for name in IGNORE_FILES:
        path = root / folder / name
        if path.is_file() and not path.is_symlink():
            found += rules_of(path.read_text(encoding="utf-8", errors="replace").splitlines(), folder)
    return found


def is_left_out(rules: Sequence[Rule], path: PurePosixPath, *, is_folder: bool) -> bool:
    """Return whether a path is left out: the last rule about it decides."""
    for rule in reversed(rules):
        if rule.matches(path, is_folder=is_folder):
            return not rule.is_kept
    return False


def _translated(pattern: str) -> str:
    """Return a glob of git's as a regular expression."""
    out, at = "", 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            out, at = out + "(?:.*/)?", at + 3
        elif pattern.startswith("**", at):
            out, at = out + ".*", at + 2
        elif pattern[at] == "*":
            out, at = out + "[^/]*", at + 1
        elif pattern[at] == "?":
            out, at = out + "[^/]", at + 1
        elif pattern[at] == "[" and "]" in pattern[at + 2 :]:
            end = pattern.index("]", at + 2)
            inner = pattern[at + 1 : end].replace("\\", "\\\\")
            out, at = out + f"[{'^' + inner[1:] if inner.startswith('!') else inner}]", end + 1
        else:
            out, at = out + re.escape(pattern[at]), at + 1
    return out
