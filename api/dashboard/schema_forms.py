"""Forms made of JSON Schemas: a field for each value, a select for each `oneOf`, and the way back to a document.

Names of inputs are dotted paths of the document. A field that is left empty, or holds the default, is not in the
document: only what a person has changed is sent.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

Schema = Mapping[str, Any]
Kind = Literal["text", "number", "choice", "flag", "yaml"]
_NUMBERS = ("number", "integer")
_SCALARS = ("string", *_NUMBERS)


@dataclass(frozen=True, slots=True)
class Field:
    """One input."""

    path: str
    label: str
    kind: Kind
    value: str
    """As it stands in the input; empty where it is the default."""
    usual: str
    """The default, as people write it; empty where there is none."""
    help: str = ""
    choices: tuple[str, ...] = ()
    bounds: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the document with fields of its own."""

    path: str
    label: str
    help: str = ""
    tag: Field | None = None
    """Says which of several kinds it is."""
    items: "tuple[Field | Part, ...]" = field(default_factory=tuple)

    @property
    def is_changed(self) -> bool:
        """Whether something in it is no default, or was refused."""
        inputs = list(walk(self.items)) + ([self.tag] if self.tag else [])
        return any(one.error or (one.value and one.value != one.usual) for one in inputs)


def walk(items: "tuple[Field | Part, ...]") -> Iterator[Field]:
    """Return every input below, in order."""
    for item in items:
        if isinstance(item, Field):
            yield item
            continue
        if item.tag is not None:
            yield item.tag
        yield from walk(item.items)


class SchemaForm:
    """The inputs of a schema, from a document or back into one.

    Args:
        schema: of an object; `$defs` are looked up in it.
        prefix: goes before every path.
        without: properties that have no input here.
    """

    def __init__(self, schema: Schema, *, prefix: str = "", without: tuple[str, ...] = ()) -> None:
        self._root = schema
        self._prefix = prefix
        self._without = without

    def items(self, document: Mapping[str, Any], errors: Mapping[str, str]) -> "tuple[Field | Part, ...]":
        """Return the inputs for a document, with what was refused at its field."""
        return self._properties(self._root, document, {}, self._prefix, errors)

    def read(self, given: Mapping[str, str]) -> dict[str, Any]:
        """Return the document that inputs stand for."""
        return self._read(self._root, given, {}, self._prefix)

    def _properties(
        self, schema: Schema, document: Any, usual: Mapping[str, Any], path: str, errors: Mapping[str, str]
    ) -> "tuple[Field | Part, ...]":
        held = document if isinstance(document, Mapping) else {}
        found = []
        for name, node in self._named(schema, path):
            default = usual.get(name, node.get("default"))
            found.append(self._item(name, node, held.get(name), default, f"{path}{name}", errors))
        return tuple(found)

    def _named(self, schema: Schema, path: str) -> list[tuple[str, dict[str, Any]]]:
        resolved = [(name, self._resolved(node)) for name, node in schema.get("properties", {}).items()]
        without = self._without if path == self._prefix else ()
        return [(name, node) for name, node in resolved if "const" not in node and name not in without]

    def _item(
        self, name: str, node: dict[str, Any], value: Any, usual: Any, path: str, errors: Mapping[str, str]
    ) -> "Field | Part":
        text = {"path": path, "label": name.replace("_", " "), "help": " ".join(node.get("description", "").split())}
        if "discriminator" in node:
            return self._union(node, value, usual, text, errors)
        if "properties" in node:
            items = self._properties(node, value, usual if isinstance(usual, dict) else {}, f"{path}.", errors)
            return Part(text["path"], text["label"], text["help"], items=items)
        kind, choices, bounds = _kind(self._plain(node))
        return Field(
            text["path"],
            text["label"],
            kind,
            value="" if value is None or value == usual else written(value),
            usual="" if usual is None else written(usual),
            help=text["help"],
            choices=choices,
            bounds=bounds,
            error=errors.get(path, ""),
        )

    def _union(
        self, node: dict[str, Any], value: Any, usual: Any, text: dict[str, str], errors: Mapping[str, str]
    ) -> Part:
        tag, kinds = node["discriminator"]["propertyName"], node["discriminator"]["mapping"]
        default = usual if isinstance(usual, dict) else {}
        named = value.get(tag) if isinstance(value, Mapping) else None
        chosen = named if isinstance(named, str) and named in kinds else str(default.get(tag) or next(iter(kinds)))
        schema = self._resolved({"$ref": kinds[chosen]})
        path = f"{text['path']}.{tag}"
        select = Field(
            path, tag, "choice", chosen, str(default.get(tag, "")), choices=tuple(kinds), error=errors.get(path, "")
        )
        same = default if chosen == default.get(tag) else {}
        items = self._properties(schema, value, same, f"{text['path']}.", errors)
        kept = {**text, "help": " ".join(schema.get("description", text["help"]).split())}
        return Part(kept["path"], kept["label"], kept["help"], select, items)

    def _read(self, schema: Schema, given: Mapping[str, str], usual: Mapping[str, Any], path: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, node in self._named(schema, path):
            value = self._value(node, given, usual.get(name, node.get("default")), f"{path}{name}")
            if value is not None:
                found[name] = value
        return found

    def _value(self, node: dict[str, Any], given: Mapping[str, str], usual: Any, path: str) -> Any:
        if "discriminator" in node:
            tag, kinds = node["discriminator"]["propertyName"], node["discriminator"]["mapping"]
            default = usual if isinstance(usual, dict) else {}
            chosen = given.get(f"{path}.{tag}") or default.get(tag)
            if chosen not in kinds:
                return {tag: chosen} if chosen else None
            is_usual = chosen == default.get(tag)
            schema = self._resolved({"$ref": kinds[chosen]})
            inside = self._read(schema, given, default if is_usual else {}, f"{path}.")
            return {tag: chosen, **inside} if inside or not is_usual else None
        if "properties" in node:
            return self._read(node, given, usual if isinstance(usual, dict) else {}, f"{path}.") or None
        text = given.get(path, "").strip()
        if not text:
            return None
        plain = self._plain(node)
        choices = {written(one): one for one in plain.get("enum", ())}
        value = choices[text] if text in choices else understood(text, _kind(plain)[0])
        return None if value == usual else value

    def _resolved(self, node: Mapping[str, Any]) -> dict[str, Any]:
        if "$ref" not in node:
            return dict(node)
        target = self._root["$defs"][node["$ref"].rsplit("/", 1)[1]]
        return {**self._resolved(target), **{name: value for name, value in node.items() if name != "$ref"}}

    def _plain(self, node: dict[str, Any]) -> dict[str, Any]:
        """Return what a value may be besides null; a flag that may be null is a choice of two."""
        others = [self._resolved(one) for one in node.get("anyOf", ()) if one.get("type") != "null"]
        if len(others) != 1:
            return node
        return {**others[0], "enum": [True, False]} if others[0].get("type") == "boolean" else others[0]


def written(value: Any) -> str:
    """Return a value as it stands in an input."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else json.dumps(value)


def understood(text: str, kind: Kind) -> Any:
    """Return what an input's text stands for; text that is no number stays, and is refused by the schema."""
    if kind == "number":
        for read in (int, float):
            try:
                return read(text)
            except ValueError:
                continue
        return text
    if kind == "flag":
        return text == "true"
    if kind == "yaml":
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            return text
    return text


def _kind(node: Mapping[str, Any]) -> tuple[Kind, tuple[str, ...], str]:
    if "enum" in node:
        return "choice", tuple(map(written, node["enum"])), ""
    if node.get("type") == "boolean":
        return "flag", (), ""
    if node.get("type") in _NUMBERS:
        return "number", (), _bounds(node)
    return ("text" if node.get("type") in _SCALARS else "yaml"), (), ""


def _bounds(node: Mapping[str, Any]) -> str:
    low = next((f"{word}{written(node[name])}" for name, word in _LOW if name in node), "")
    high = next((f"{word}{written(node[name])}" for name, word in _HIGH if name in node), "")
    return ", ".join(one for one in (low, high) if one)


_LOW = (("minimum", "from "), ("exclusiveMinimum", "above "))
_HIGH = (("maximum", "to "), ("exclusiveMaximum", "below "))
