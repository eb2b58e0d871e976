"""How commands show what they got: as a table for people or as JSON, and nothing in it that a terminal would obey."""

import json
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from enum import StrEnum
from typing import Annotated, TypeVar

import typer
from pydantic import BaseModel
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table

_Found = TypeVar("_Found", bound=BaseModel | Sequence[BaseModel])
_OBEYED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of characters that move the cursor, start a sequence, turn the direction of text or break a line."""
_KEPT = frozenset("\n\t")


class Output(StrEnum):
    """How an answer is written."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="Tables for people, JSON for programs.")]


def printable(text: str) -> str:
    """Return text that others wrote as a terminal can show it: characters it would obey are spelled out."""
    if text.isprintable():
        return text
    return "".join(
        f"\\u{ord(one):04x}" if one not in _KEPT and unicodedata.category(one) in _OBEYED else one for one in text
    )


class _Terminal(Console):
    """Prints everything through `printable`; styles are the console's own and come after it."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


out: Console = _Terminal(highlight=False, soft_wrap=True)
"""What was asked for."""
err: Console = _Terminal(stderr=True, highlight=False, soft_wrap=True)
"""Errors and remarks, which must not get into a pipe."""


def show(
    output: Output,
    found: _Found,
    render: Callable[[_Found], RenderableType],
    *,
    nothing: str | None = None,
    remark: str | None = None,
) -> None:
    """Print documents, as JSON or as a person reads them.

    Args:
        output: which of the two.
        found: one document or several.
        render: makes of them what a person reads.
        nothing: said instead where there are none.
        remark: said after a table.
    """
    if output is Output.JSON:
        plain = [json.loads(one.model_dump_json()) for one in ([found] if isinstance(found, BaseModel) else found)]
        out.print(json.dumps(plain[0] if isinstance(found, BaseModel) else plain, indent=2), markup=False)
    elif nothing is not None and not found:
        err.print(nothing)
    else:
        out.print(render(found))
        if remark is not None:
            err.print(remark)


def table(
    columns: Iterable[str],
    rows: Iterable[Iterable[RenderableType]],
    *,
    right: Collection[str] = (),
    wrapped: Collection[str] = (),
) -> Table:
    """Return rows under their columns; texts are rich's markup.

    Args:
        columns: their headings.
        rows: one cell for each column.
        right: columns of numbers.
        wrapped: columns that may take several lines.
    """
    made = Table(box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, no_wrap=column not in wrapped, justify="right" if column in right else "left")
    for row in rows:
        made.add_row(*row)
    return made


def fact_table(facts: Iterable[tuple[str, str]]) -> Table:
    """Return names with their values, which are rich's markup."""
    made = Table.grid(padding=(0, 2))
    for name, value in facts:
        made.add_row(f"[dim]{name}[/]", value)
    return made


def print_next(*commands: tuple[str, str], title: str = "Next:") -> None:
    """Print commands that make sense now, and what each is for."""
    if commands:
        out.print(title)
    for command, meaning in commands:
        out.print(f"  {escape(command)}   [dim]# {meaning}[/]")
