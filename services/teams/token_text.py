"""The text of a token: how one is made, recognised, digested, and kept out of what people read."""

import hashlib
import re
import secrets

_MARK = "xsam_"
_SECRET_BYTES = 32
_SECRET_CHARS = 43
"""Of 32 bytes in URL-safe base64."""
_PREFIX_CHARS = len(_MARK) + 6
_TOKEN = re.compile(rf"{_MARK}[A-Za-z0-9_-]{{{_SECRET_CHARS}}}")


def new_token() -> str:
    """Return a new token: a mark that scanners for leaked secrets can look for, and 256 random bits."""
    return _MARK + secrets.token_urlsafe(_SECRET_BYTES)


def is_well_formed(text: str) -> bool:
    """Return whether the text could be a token; anything else need not be looked up."""
    return _TOKEN.fullmatch(text) is not None


def digest(token: str) -> str:
    """Return what is stored of a token and looked up by.

    One round of SHA-256, no salt, no slow hash: those protect passwords, which people choose and attackers can guess
    from a list. A token is 256 bits from the system's random source, so whoever steals the digests would have to try
    2**255 of them on average, however fast each try is; and every request pays for the hash. The lookup by index needs
    no comparison in constant time either: a caller can't choose a token whose digest is close to a stored one.
    """
    return hashlib.sha256(token.encode()).hexdigest()


def prefix(token: str) -> str:
    """Return the part of a token that may be shown; 220 of its bits stay unknown."""
    return token[:_PREFIX_CHARS]


def redact(text: str) -> str:
    """Return the text with every token in it cut to its prefix."""
    return _TOKEN.sub(lambda found: f"{prefix(found.group())}***", text)
