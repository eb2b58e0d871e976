from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import jobs
from xsam.services import paging
from xsam.services.db.session import Database
from xsam.services.errors import InvalidRequestError
from xsam.services.jobs import listing
from xsam.services.jobs.listing import JobFilter

_KEYS = st.lists(st.text(max_size=20) | st.integers() | st.floats(allow_nan=False), max_size=4)


@given(_KEYS)
def test_decode__returns_what_was_encoded(key: list[object]) -> None:
    assert paging.decode(paging.encode(*key), lambda *read: list(read)) == key


@given(st.text(max_size=80) | st.binary(max_size=60).map(lambda data: data.decode("latin-1")))
def test_decode__answers_any_text_with_a_key_or_a_named_error(text: str) -> None:
    with suppress(InvalidRequestError):
        assert isinstance(paging.decode(text, lambda first, second: (first, second)), tuple)


@pytest.mark.parametrize("text", ["", "x", "bnVsbA==", "WzEsMl0=", "eyJhIjoxfQ==", "WyIyMDI2LTAxLTAxIiwiYSJd", "é"])
def test_newest_first__refuses_cursors_it_did_not_make(sqlite_database: Database, text: str) -> None:
    jobs.submit(sqlite_database)
    with sqlite_database.read() as session, pytest.raises(InvalidRequestError, match="next_cursor") as caught:
        listing.list_jobs(session, where=JobFilter(), cursor=text)
    assert caught.value.field == "cursor"
