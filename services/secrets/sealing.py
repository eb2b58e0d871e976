"""Encryption of secrets with the operator's keys; knows no rows.

What is encrypted says whose it is, so a row that was copied to another team or name can't be opened there.
"""

import json
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from xsam.services.errors import ForbiddenError, StorageError


def seal(value: str, *, team: str, name: str, keys: Sequence[str]) -> str:
    """Return a value encrypted with the first key.

    Raises:
        ForbiddenError: the operator has set no key.
    """
    return _cipher(keys).encrypt(json.dumps([team, name, value]).encode()).decode()


def unseal(sealed: str, *, team: str, name: str, keys: Sequence[str]) -> str:
    """Return the value again, whichever of the keys it was encrypted with.

    Raises:
        ForbiddenError: the operator has set no key.
        StorageError: none of the keys opens it, or it is another secret's.
    """
    try:
        *whose, value = json.loads(_cipher(keys).decrypt(sealed))
    except InvalidToken:
        whose = []
    if whose != [team, name]:
        raise StorageError(f"no key of XSAM_SECRETS__KEY opens secret {name} of team {team}; set it again")
    return str(value)


def _cipher(keys: Sequence[str]) -> MultiFernet:
    if not keys:
        raise ForbiddenError("this service keeps no secrets: the operator has not set XSAM_SECRETS__KEY")
    return MultiFernet([Fernet(key) for key in keys])
