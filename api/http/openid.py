"""An OpenID Connect provider as a client sees it: where to send a browser, and whom its answer speaks of.

Authorization code flow with PKCE (OpenID Connect Core 1.0, RFC 7636); the ID token's signature, issuer, audience,
expiry and nonce are checked.
"""

import base64
import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlsplit

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from xsam.services.errors import UnauthenticatedError
from xsam.services.settings import SignOnSettings
from xsam.services.teams.sign_on import Person

CALLBACK = "/sign-in/sso/callback"
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""With a private key that only the provider has."""
_CONFIGURATION = "/.well-known/openid-configuration"
_LEEWAY_S = 60
_FRESH_S = 3600.0
_NEW_KEYS_S = 60.0
"""Keys that are older are asked for again when an ID token does not fit them."""
_TIMEOUT_S = 10.0
_RANDOM_BYTES = 32


@dataclass(frozen=True, slots=True)
class Journey:
    """What one browser has to bring back from the provider: the answer must fit it, and no other browser has it."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def begin(cls) -> "Journey":
        """Return a new one."""
        return cls(*(secrets.token_urlsafe(_RANDOM_BYTES) for _ in range(3)))

    @property
    def challenge(self) -> str:
        """What the provider learns of the verifier before it is used (S256)."""
        digest = hashlib.sha256(self.verifier.encode("ascii")).digest()
        return base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")


def sound_claims(id_token: str, keys: Any, *, issuer: str, client_id: str, nonce: str) -> dict[str, Any]:
    """Return what an ID token says, once all that protects it has been checked.

    Args:
        id_token: as the provider sent it.
        keys: the provider's public ones, a JSON Web Key Set (RFC 7517).
        issuer: who must have made it.
        client_id: whom it must be for.
        nonce: of the journey it must belong to.

    Raises:
        UnauthenticatedError: it is not signed with one of the keys, is another's, or has expired.
    """
    registry = jwt.JWTClaimsRegistry(
        leeway=_LEEWAY_S,
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": client_id},
        nonce={"essential": True, "value": nonce},
        sub={"essential": True},
        exp={"essential": True},
        iat={"essential": True},
    )
    try:
        token = jwt.decode(id_token, KeySet.import_key_set(keys), algorithms=ALGORITHMS)
        registry.validate(token.claims)
    except (JoseError, ValueError, KeyError, TypeError) as e:  # keys that are none raise the last two
        raise UnauthenticatedError(f"the provider's ID token is not sound: {e}") from e
    return dict(token.claims)


class OpenIdProvider:
    """The provider that the settings name; its documents are read when they are needed, and kept for an hour.

    Args:
        settings: with an issuer.
    """

    def __init__(self, settings: SignOnSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, dict[str, Any]]] = {}
        """Its documents by address, with when they came."""

    @property
    def host(self) -> str:
        """Name for people."""
        return urlsplit(self._settings.issuer or "").netloc

    def authorization_url(self, journey: Journey) -> str:
        """Return where the browser goes to sign in.

        Raises:
            UnauthenticatedError: the provider does not answer.
        """
        asked = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self._redirect_uri,
            "scope": " ".join(self._settings.scopes),
            "state": journey.state,
            "nonce": journey.nonce,
            "code_challenge": journey.challenge,
            "code_challenge_method": "S256",
        }
        endpoint = httpx.URL(self._configured("authorization_endpoint"))
        return str(endpoint.copy_merge_params(asked))

    def person(self, journey: Journey, code: str) -> Person:
        """Return whom the provider has signed in.

        Args:
            journey: that the browser went on.
            code: that it came back with.

        Raises:
            UnauthenticatedError: the provider does not take the code, does not answer, or its answer is not sound.
        """
        with httpx.Client(timeout=_TIMEOUT_S) as client:
            answer = self._token(client, journey, code)
            claims = self._claims(str(answer.get("id_token") or ""), journey.nonce)
            if not {self._settings.user_claim, self._settings.groups_claim} <= claims.keys():
                claims = self._more_claims(client, str(answer.get("access_token")), claims)
        name = claims.get(self._settings.user_claim)
        if not isinstance(name, str) or not name:
            raise UnauthenticatedError(f"{self.host} did not say your {self._settings.user_claim}")
        groups = claims.get(self._settings.groups_claim) or []
        listed = [groups] if isinstance(groups, str) else groups
        return Person(str(claims["iss"]), str(claims["sub"]), name, frozenset(str(one) for one in listed))

    @property
    def _redirect_uri(self) -> str:
        return f"{self._settings.public_url}{CALLBACK}"

    def _token(self, client: httpx.Client, journey: Journey, code: str) -> dict[str, Any]:
        settings = self._settings
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": journey.verifier,
        }
        url = self._configured("token_endpoint")
        auth = httpx.Auth()
        if settings.client_secret_file is None:
            form["client_id"] = settings.client_id
        else:
            secret = _secret(settings.client_secret_file)
            auth = httpx.BasicAuth(quote_plus(settings.client_id), quote_plus(secret))  # RFC 6749, 2.3.1
        return self._asked(lambda: client.post(url, data=form, auth=auth))

    def _asked(self, ask: Callable[[], httpx.Response]) -> dict[str, Any]:
        """Return the JSON object that the provider answers with.

        Raises:
            UnauthenticatedError: it does not answer, refuses, or answers with something else.
        """
        try:
            answer = ask()
            found = answer.json()
        except (httpx.HTTPError, ValueError) as e:
            raise UnauthenticatedError(f"the sign-on provider {self.host} does not answer: {e}") from e
        if not isinstance(found, dict) or not answer.is_success:
            said = found.get("error_description") or found.get("error") if isinstance(found, dict) else None
            raise UnauthenticatedError(f"the sign-on provider {self.host} refused: {said or answer.status_code}")
        return found

    def _claims(self, id_token: str, nonce: str) -> dict[str, Any]:
        issuer = self._configured("issuer")
        if issuer.rstrip("/") != str(self._settings.issuer).rstrip("/"):
            raise UnauthenticatedError(f"sign_on.issuer is {self._settings.issuer!r}, but it calls itself {issuer!r}")
        expected = {"issuer": issuer, "client_id": self._settings.client_id, "nonce": nonce}
        keys = self._keys(_FRESH_S)
        try:
            return sound_claims(id_token, keys, **expected)
        except UnauthenticatedError:
            newer = self._keys(_NEW_KEYS_S)
            if newer is keys:
                raise
        return sound_claims(id_token, newer, **expected)

    def _more_claims(self, client: httpx.Client, access_token: str, claims: dict[str, Any]) -> dict[str, Any]:
        """Return the claims with those that the provider tells only when it is asked."""
        endpoint = self._configuration().get("userinfo_endpoint")
        if endpoint is None:
            return claims
        bearer = {"Authorization": f"Bearer {access_token}"}
        found = self._asked(lambda: client.get(str(endpoint), headers=bearer))
        if found.get("sub") != claims["sub"]:
            raise UnauthenticatedError(f"the sign-on provider {self.host} spoke of two people")
        return found | claims

    def _configuration(self) -> dict[str, Any]:
        return self._document(f"{str(self._settings.issuer).rstrip('/')}{_CONFIGURATION}", _FRESH_S)

    def _configured(self, name: str) -> str:
        found = self._configuration().get(name)
        if not isinstance(found, str):
            raise UnauthenticatedError(f"the sign-on provider {self.host} does not tell its {name}")
        return found

    def _keys(self, newer_than_s: float) -> dict[str, Any]:
        return self._document(self._configured("jwks_uri"), newer_than_s)

    def _document(self, url: str, newer_than_s: float) -> dict[str, Any]:
        """Return one of the provider's documents, asked for again when it is older.

        Raises:
            UnauthenticatedError: it does not answer, or with something else.
        """
        with self._lock:
            kept_at, document = self._kept.get(url, (0.0, None))
        if document is not None and time.monotonic() - kept_at < newer_than_s:
            return document
        found = self._asked(lambda: httpx.get(url, timeout=_TIMEOUT_S))
        with self._lock:
            self._kept[url] = (time.monotonic(), found)
        return found


def _secret(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as e:
        raise UnauthenticatedError(f"sign_on.client_secret_file is {str(path)!r}, which can't be read: {e}") from e
