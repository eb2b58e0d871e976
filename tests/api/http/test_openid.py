"""What makes an ID token sound."""

import time
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, RSAKey

from xsam.api.http.openid import sound_claims
from xsam.services.errors import UnauthenticatedError

KEY, OTHER_KEY = (RSAKey.generate_key(2048, {"kid": "one"}) for _ in range(2))
CLAIMS: dict[str, Any] = {"iss": "https://login.example.org", "aud": "xsam", "sub": "17", "nonce": "n"}


def _signed(key: Any = KEY, algorithm: str = "RS256", **changes: Any) -> str:
    now = int(time.time())
    claims = {**CLAIMS, "iat": now, "exp": 300, **changes}
    if claims["exp"] is not None:
        claims["exp"] += now
    kept = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode({"alg": algorithm, "kid": "one"}, kept, key, algorithms=[algorithm])


def _read(token: str) -> dict[str, Any]:
    keys = KeySet([RSAKey.import_key(KEY.as_dict(private=False))])
    return sound_claims(token, keys, issuer=CLAIMS["iss"], client_id="xsam", nonce="n")


@pytest.mark.parametrize("changes", [{}, {"aud": ["xsam", "other"]}, {"exp": -20}])
def test_sound__tokens_are_read(changes: dict[str, Any]) -> None:
    assert _read(_signed(**changes))["sub"] == "17"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": "other"},
        {"aud": ["other"]},
        {"aud": None},
        {"nonce": "of another journey"},
        {"nonce": None},
        {"sub": None},
        {"exp": -300},
        {"exp": None},
        {"key": OTHER_KEY},
        {"key": OctKey.generate_key(256, {"kid": "one"}), "algorithm": "HS256"},
    ],
)
def test_others__are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UnauthenticatedError, match="ID token is not sound"):
        _read(_signed(**changes))


@pytest.mark.parametrize("token", ["", "a.b.c", "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxNyJ9."])
def test_no_signature__no_token(token: str) -> None:
    with pytest.raises(UnauthenticatedError, match="ID token is not sound"):
        _read(token)
