"""Values as people read them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from xsam.api import formats
from xsam.api.dashboard import filters


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-4, "1e-4"),
        (2.5e-5, "2.5e-5"),
        (0.0707106, "0.0707"),
        (0.1, "0.1"),
        (1.0, "1"),
        (0.0, "0"),
        (1234.5, "1,234"),
        (1234567.0, "1,234,567"),
        (3e7, "3e7"),
        (float("inf"), "-"),
        (float("nan"), "-"),
        (5, "5"),
        (12340, "12,340"),
        (True, "true"),
        (None, "-"),
        ("text", "text"),
    ],
)
def test_param(value: Any, text: str) -> None:
    assert filters.param(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (40, "40"),
        (999, "999"),
        (1000, "1k"),
        (1234, "1.2k"),
        (41_300, "41.3k"),
        (2_500_000, "2.5M"),
    ],
)
def test_short(value: float | None, text: str) -> None:
    assert filters.short(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 2**20, "5.0 MiB")]
)
def test_size(value: int | None, text: str) -> None:
    assert formats.size(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (-3, "0 s"), (59, "59 s"), (180, "3 min"), (7200, "2 h"), (90_000, "1 d")]
)
def test_lasting(seconds: float | None, text: str) -> None:
    assert filters.lasting(seconds) == text


def test_ago__counts_from_now() -> None:
    assert filters.ago(datetime.now(UTC) - timedelta(minutes=3)) == "3 min"


def test_plain__shows_what_would_turn_the_direction() -> None:
    assert filters.plain("a\u202eb\u2066c") == "a\u2426b\u2426c"


def test_query__changes_and_drops() -> None:
    values = {"state": ["failed", "queued"], "page": 3, "q": "a b"}
    assert filters.query(values, page=None, q="x&y") == "?state=failed&state=queued&q=x%26y"
    assert filters.query({}) == "?"
