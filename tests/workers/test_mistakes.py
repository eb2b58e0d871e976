import dataclasses
from pathlib import Path

import pytest

from tests.workers.mistakes import MISTAKES, as_markdown, told


@pytest.fixture(scope="module")
def table() -> str:
    return as_markdown()


def test_table_in_the_repository__is_what_is_told(table: str) -> None:
    assert Path(__file__).with_name("mistakes.md").read_text().strip() == table


def test_table__leaves_no_mistake_without_a_word(table: str) -> None:
    rows = table.splitlines()[2:]
    assert len(rows) == len(MISTAKES) >= 25
    assert not [row for row in rows if row.endswith("|  |")]
    assert "/xsam_core/" not in table, "whose files a person can't change"
    assert "Traceback" not in table


def test_right_code__is_told_nothing() -> None:
    assert told(dataclasses.replace(MISTAKES[0], method="")) == ""
