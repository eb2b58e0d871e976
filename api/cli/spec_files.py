"""From a file and `--set` options to the specification that is sent; the server checks what it says."""

import json
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from xsam.api.cli.options import CommandError

MAX_CHARS = 1_000_000
"""As much as the service takes."""
MAX_VALUES = 100_000


def load(source: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return the specification in a YAML or JSON file with overrides applied.

    Args:
        source: path of the file; `-` reads standard input.
        overrides: `dotted.path=value` each; the value is read as YAML.

    Raises:
        CommandError: no such file, not YAML, not a mapping, or an override that can't be applied.
    """
    spec = _parse(_read(source), source)
    for override in overrides:
        _apply(spec, override)
    try:
        # YAML knows dates and not-a-number, JSON does not; a round trip leaves only what can be sent.
        plain: dict[str, Any] = json.loads(json.dumps(spec, default=_plain, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as e:
        raise CommandError(f"{source} holds a value that JSON can't carry: {e}") from e
    return plain


def from_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Return a document of `dotted.path=value` fields alone.

    Raises:
        CommandError: a field that can't be set.
    """
    spec: dict[str, Any] = {}
    for override in overrides:
        _apply(spec, override)
    return spec


def value(text: str) -> Any:
    """Return a value written as YAML.

    Raises:
        CommandError: it is none.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise CommandError(f"{text!r} is not valid YAML") from e


class _Loader(yaml.SafeLoader):
    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MAX_VALUES:  # merges (`<<: [*a, *a]`) are multiplied out here already
            raise yaml.constructor.ConstructorError(None, None, "too many merged fields", node.start_mark)


def _read(source: str) -> str:
    try:
        if source == "-":
            text = sys.stdin.read(MAX_CHARS + 1)
        else:
            with Path(source).open(encoding="utf-8") as file:
                text = file.read(MAX_CHARS + 1)
    except OSError as e:
        raise CommandError(f"can't read {source}: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise CommandError(f"{source} is not text in UTF-8") from e
    if len(text) > MAX_CHARS:
        raise CommandError(f"{source} is longer than the {MAX_CHARS:,} characters that a specification may have")
    return text


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        spec = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise CommandError(f"{source}{where}: not valid YAML ({getattr(e, 'problem', None) or e})") from e
    except RecursionError as e:
        raise CommandError(f"{source} is nested too deeply") from e
    _check_size(spec, source)
    if spec is None:
        return {}
    if not isinstance(spec, dict):
        raise CommandError(f"{source} holds a {type(spec).__name__}; a job is a mapping of fields such as `epochs: 10`")
    return spec


def _check_size(spec: Any, source: str) -> None:
    """Refuse what aliases (`*name`) blow up: a few lines can stand for more values than any machine holds.

    Raises:
        CommandError: it has too many values, or holds itself.
    """
    sizes: dict[int, int | None] = {}

    def size(part: Any) -> int:
        if not isinstance(part, (dict, list, tuple, set)):
            return 1
        if id(part) not in sizes:
            sizes[id(part)] = None
            sizes[id(part)] = 1 + sum(map(size, part.values() if isinstance(part, dict) else part))
        known = sizes[id(part)]
        if known is None:
            raise CommandError(f"{source} has an alias to what it is itself a part of")
        return known

    if size(spec) > MAX_VALUES:
        raise CommandError(f"{source} holds more than {MAX_VALUES:,} values, aliases counted; allowed are fewer")


def _apply(spec: dict[str, Any], override: str) -> None:
    path, is_given, text = override.partition("=")
    *parents, last = path.split(".")
    if not is_given or not all([*parents, last]):
        raise CommandError(f"--set {override}: allowed is FIELD=VALUE, for example optimizer.rho=0.1")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise CommandError(f"--set {override}: the value is not valid YAML") from e
    part = spec
    for name in parents:
        part = part.setdefault(name, {})
        if not isinstance(part, dict):
            raise CommandError(f"--set {override}: {name} is {part!r} in the file, which has no fields")
    part[last] = value


def _plain(value: Any) -> str:
    if isinstance(value, date):  # a name such as 2026-03-01, which YAML reads as a date
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} {value!r}")
