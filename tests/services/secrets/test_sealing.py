import base64
import os

import pytest

from xsam.services.errors import ForbiddenError, StorageError
from xsam.services.secrets.sealing import seal, unseal

VALUE = "wandb-0123456789"
RED = {"team": "red", "name": "WANDB_API_KEY"}


def _key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def test_sealed_value__is_not_in_the_clear_and_opens_again() -> None:
    key = _key()
    sealed = seal(VALUE, **RED, keys=[key])
    assert VALUE not in sealed
    assert VALUE.encode() not in base64.urlsafe_b64decode(sealed)
    assert seal(VALUE, **RED, keys=[key]) != sealed, "equal values are not seen to be equal"
    assert unseal(sealed, **RED, keys=[key]) == VALUE


def test_several_keys__the_first_encrypts_and_each_decrypts() -> None:
    old, new = _key(), _key()
    before, after = seal(VALUE, **RED, keys=[old]), seal(VALUE, **RED, keys=[new, old])
    assert {unseal(sealed, **RED, keys=[new, old]) for sealed in (before, after)} == {VALUE}
    assert unseal(after, **RED, keys=[new]) == VALUE
    with pytest.raises(StorageError, match="opens secret WANDB_API_KEY of team red; set it again"):
        unseal(before, **RED, keys=[new])


@pytest.mark.parametrize("other", [{**RED, "team": "blue"}, {**RED, "name": "HF_TOKEN"}])
def test_row_that_was_copied__opens_under_no_other_team_or_name(other: dict[str, str]) -> None:
    key = _key()
    with pytest.raises(StorageError):
        unseal(seal(VALUE, **RED, keys=[key]), **other, keys=[key])


def test_changed_text__does_not_open() -> None:
    key = _key()
    sealed = seal(VALUE, **RED, keys=[key])
    with pytest.raises(StorageError):
        unseal(f"{sealed[:-5]}AAAA=", **RED, keys=[key])


def test_without_a_key__it_is_said_what_to_set() -> None:
    with pytest.raises(ForbiddenError, match="XSAM_SECRETS__KEY"):
        seal(VALUE, **RED, keys=[])
    with pytest.raises(ForbiddenError, match="XSAM_SECRETS__KEY"):
        unseal(seal(VALUE, **RED, keys=[_key()]), **RED, keys=[])
