import io
import json

import pytest
from pydantic import BaseModel
from rich.table import Table

from xsam.api.cli import show as showing
from xsam.api.cli.show import Output, _Terminal, printable, show, table

HOSTILE = "a\x1b]0;owned\x07 \x9b31m \u202eevil\u2028\x7f\udcff"


class Thing(BaseModel):
    name: str
    size: float = float("nan")


def _rows(things: list[Thing]) -> Table:
    return table(("name",), ((one.name,) for one in things))


def test_printable__spells_out_what_a_terminal_would_obey() -> None:
    assert printable(HOSTILE) == "a\\u001b]0;owned\\u0007 \\u009b31m \\u202eevil\\u2028\\u007f\\udcff"
    assert printable("žluťoučký\n\t東京 ✓") == "žluťoučký\n\t東京 ✓"


@pytest.mark.parametrize("is_table", [True, False])
def test_terminal__shows_hostile_text_and_keeps_its_own_styles(*, is_table: bool) -> None:
    file = io.StringIO()
    terminal = _Terminal(
        file=file, force_terminal=True, color_system="standard", soft_wrap=True, highlight=False, width=200
    )
    terminal.print(_rows([Thing(name=f"[red]{HOSTILE}[/]")]) if is_table else f"[red]{HOSTILE}[/]")
    text = file.getvalue()
    assert "\x1b[31m" in text
    assert "\\u001b]0;owned" in text
    assert not set("\x9b\u202e\u2028\x7f\x07") & set(text)
    assert "\x1b]" not in text


def test_show__writes_json_that_programs_read_and_terminals_survive(capsys: pytest.CaptureFixture[str]) -> None:
    things = [Thing(name=HOSTILE.removesuffix("\udcff"))]
    show(Output.JSON, things, _rows)
    text = capsys.readouterr().out
    assert json.loads(text) == [{"name": things[0].name, "size": None}]
    assert text.replace("\n", "").isascii()
    assert text.replace("\n", "").isprintable()
    show(Output.JSON, Thing(name="a"), lambda one: one.name)
    assert json.loads(capsys.readouterr().out)["name"] == "a"


def test_show__has_a_word_for_nothing_and_a_remark_after_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    show(Output.TABLE, [], _rows, nothing="No things.", remark="More.")
    assert capsys.readouterr() == ("", "No things.\n")
    show(Output.TABLE, [Thing(name="a")], _rows, nothing="No things.", remark="More.")
    printed = capsys.readouterr()
    assert [line.strip() for line in printed.out.splitlines()] == ["name", "a"]
    assert printed.err == "More.\n"
    assert showing.out.file is not showing.err.file
