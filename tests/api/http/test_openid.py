"""What makes an ID token sound, and what a provider may answer."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from xsam.api.http import openid
from xsam.api.http.openid import Journey, OpenIdProvider, sound_claims
from xsam.services.errors import UnauthenticatedError
from xsam.services.settings import SignOnSettings

KEY, OTHER_KEY = (RSAKey.generate_key(2048, {"kid": "one"}) for _ in range(2))
CLAIMS: dict[str, Any] = {"iss": "https://login.example.org", "aud": "xsam", "sub": "17", "nonce": "n"}


def _signed(key: Any = KEY, algorithm: str = "RS256", **changes: Any) -> str:
    now = int(time.time())
    claims = {**CLAIMS, "iat": now, "exp": 300, **changes}
    if claims["exp"] is not None:
        claims["exp"] += now
    kept = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode({"alg": algorithm, "kid": "one"}, kept, key, algorithms=[algorithm])


def _public(key: RSAKey) -> dict[str, Any]:
    return {"keys": [key.as_dict(private=False)]}


def _read(token: str) -> dict[str, Any]:
    return sound_claims(token, _public(KEY), issuer=CLAIMS["iss"], client_id="xsam", nonce="n")


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


@pytest.mark.parametrize("keys", [{}, {"keys": []}, {"keys": [{"kty": "RSA"}]}, {"keys": 3}])
def test_keys__that_are_none_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(UnauthenticatedError, match="ID token is not sound"):
        sound_claims(_signed(), keys, issuer=CLAIMS["iss"], client_id="xsam", nonce="n")


class Answering(ThreadingHTTPServer):
    """A provider that answers each path with the document that a test puts there."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.documents: dict[str, Any] = {
            "/.well-known/openid-configuration": {
                "issuer": self.url,
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
                "userinfo_endpoint": f"{self.url}/userinfo",
            },
            "/keys": _public(KEY),
            "/userinfo": {"sub": "17", "preferred_username": "ann", "groups": ["vision"]},
        }
        self.sign_with(KEY)

    def sign_with(self, key: RSAKey) -> None:
        token = _signed(key, iss=self.url, aud="xsam", nonce="n")
        self.documents["/token"] = {"access_token": "a", "id_token": token}

    def person(self, provider: OpenIdProvider | None = None, **settings: Any) -> openid.Person:
        given = {"issuer": self.url, "public_url": "http://127.0.0.1:8042", **settings}
        provider = provider or OpenIdProvider(SignOnSettings.model_validate(given))
        return provider.person(Journey("s", "n", "v"), "code")


class _Handler(BaseHTTPRequestHandler):
    server: Answering

    def do_GET(self) -> None:
        body = json.dumps(self.server.documents.get(self.path, None)).encode()
        self.send_response(200 if self.path in self.server.documents else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def answering() -> Iterator[Answering]:
    with Answering() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_claims__that_the_token_leaves_out_are_asked_for(answering: Answering) -> None:
    person = answering.person()
    assert (person.subject, person.name, person.groups) == ("17", "ann", {"vision"})


def test_claims__that_nobody_tells_are_missed(answering: Answering) -> None:
    del answering.documents["/.well-known/openid-configuration"]["userinfo_endpoint"]
    with pytest.raises(UnauthenticatedError, match="did not say your preferred_username"):
        answering.person()


def test_claims__of_somebody_else_are_refused(answering: Answering) -> None:
    answering.documents["/userinfo"]["sub"] = "18"
    with pytest.raises(UnauthenticatedError, match="spoke of two people"):
        answering.person()


def test_new_keys__are_asked_for_once_those_kept_are_old(answering: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"issuer": answering.url, "public_url": "http://127.0.0.1:8042"}
    provider = OpenIdProvider(SignOnSettings.model_validate(settings))
    answering.person(provider)
    answering.sign_with(OTHER_KEY)
    answering.documents["/keys"] = _public(OTHER_KEY)
    with pytest.raises(UnauthenticatedError, match="not sound"):  # whoever sends nonsense causes no requests
        answering.person(provider)
    monkeypatch.setattr(openid, "_NEW_KEYS_S", 0.0)
    assert answering.person(provider).name == "ann"


@pytest.mark.parametrize("name", ["issuer", "token_endpoint", "jwks_uri"])
def test_configuration__that_lacks_an_address_is_named(answering: Answering, name: str) -> None:
    del answering.documents["/.well-known/openid-configuration"][name]
    with pytest.raises(UnauthenticatedError, match=f"does not tell its {name}"):
        answering.person()


def test_issuer__must_be_the_one_that_is_set(answering: Answering) -> None:
    answering.documents["/.well-known/openid-configuration"]["issuer"] = "https://evil.example"
    with pytest.raises(UnauthenticatedError, match=r"calls itself 'https://evil\.example'"):
        answering.person()


@pytest.mark.parametrize("answer", [None, [], "text"])
def test_answer__that_is_no_document_is_refused(answering: Answering, answer: Any) -> None:
    answering.documents["/token"] = answer
    with pytest.raises(UnauthenticatedError, match=r"the sign-on provider 127\.0\.0\.1:\d+ refused"):
        answering.person()


def test_secret__that_cannot_be_read_is_named(answering: Answering, tmp_path: Path) -> None:
    with pytest.raises(UnauthenticatedError, match=r"client_secret_file is '.*secret', which can't be read"):
        answering.person(client_secret_file=tmp_path / "secret")
