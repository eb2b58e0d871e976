import hashlib

import pytest

from xsam.services.teams import token_text


def test_new_token__holds_256_random_bits_behind_a_mark() -> None:
    made = {token_text.new_token() for _ in range(100)}
    assert len(made) == 100
    assert {len(text) for text in made} == {5 + 43}  # 43 characters of 6 bits hold 256
    assert all(text.startswith("xsam_") and token_text.is_well_formed(text) for text in made)


@pytest.mark.parametrize("text", ["", "xsam_", "xsam_" + "a" * 42, "xsam_" + "a" * 44, "xsam_" + "ä" * 43, "a" * 48])
def test_is_well_formed__refuses_what_cannot_be_a_token(text: str) -> None:
    assert not token_text.is_well_formed(text)


def test_is_well_formed__looks_at_the_whole_text() -> None:
    token = token_text.new_token()
    assert not token_text.is_well_formed(token + "\n")
    assert not token_text.is_well_formed(f"{token}\x00")


def test_digest__is_sha256_of_the_whole_text() -> None:
    token = token_text.new_token()
    assert token_text.digest(token) == hashlib.sha256(token.encode()).hexdigest()


def test_redact__leaves_the_prefix_of_every_token() -> None:
    first, second = token_text.new_token(), token_text.new_token()
    text = token_text.redact(f"{first} and Bearer {second}.")
    assert text == f"{first[:11]}*** and Bearer {second[:11]}***."
    assert token_text.redact("xsam_core and xsam_training") == "xsam_core and xsam_training"
