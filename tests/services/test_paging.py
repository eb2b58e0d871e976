from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xsam.services import paging
from xsam.services.errors import InvalidRequestError


@given(st.datetimes(timezones=st.just(UTC)), st.from_regex(r"[a-z0-9]{1,32}", fullmatch=True))
def test_decode__returns_what_was_encoded(created_at: datetime, row_id: str) -> None:
    assert paging.decode(paging.encode(created_at, row_id)) == (created_at, row_id)


@given(st.text(max_size=80) | st.binary(max_size=60).map(lambda data: data.decode("latin-1")))
def test_decode__answers_any_text_with_a_key_or_a_named_error(text: str) -> None:
    with suppress(InvalidRequestError):
        created_at, row_id = paging.decode(text)
        assert created_at.tzinfo is not None
        assert isinstance(row_id, str)


@pytest.mark.parametrize("text", ["", "x", "bnVsbA==", "WzEsMl0=", "eyJhIjoxfQ==", "WyIyMDI2LTAxLTAxIiwiYSJd", "é"])
def test_decode__refuses_what_encode_did_not_make(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="next_cursor") as caught:
        paging.decode(text)
    assert caught.value.field == "cursor"
