"""What tests of a service with tokens share: its callers, with a token each."""

from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from tests.support.callers import ROOT, admin_token, expire, make_member, make_team, make_token
from xsam.services.db.session import Database
from xsam.services.teams import token_text, tokens
from xsam.services.teams.roles import Role

USERS = {
    "viewer": ("vic", "red", Role.VIEWER),
    "member": ("ann", "red", Role.MEMBER),
    "lead": ("lea", "red", Role.ADMIN),
    "stranger": ("sam", "blue", Role.MEMBER),
}
"""User, team and role by the name that the tests give a caller; besides there is `admin`, an admin of the service."""


@dataclass(frozen=True)
class Callers:
    """Tokens by caller."""

    valid: Mapping[str, str]
    invalid: Mapping[str, str]

    def headers(self, caller: str) -> dict[str, str]:
        """Return what identifies a caller."""
        return bearer(self.valid[caller])


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def make_callers(database: Database) -> Callers:
    """Create two teams, their members and tokens."""
    valid = {"admin": admin_token(database)}
    for team in ("red", "blue"):
        make_team(database, team)
    for caller, (user, team, role) in USERS.items():
        make_member(database, user, team, role)
        valid[caller] = make_token(database, user, team)[1]
    expired_id, expired = make_token(database, "ann", "red", expires_in_s=60)
    expire(database, expired_id)
    revoked_id, revoked = make_token(database, "ann", "red")
    with database.unit_of_work() as session:
        tokens.revoke(session, ROOT, revoked_id)
    invalid = {"unknown": token_text.new_token(), "garbage": "hunter2", "expired": expired, "revoked": revoked}
    return Callers(valid, invalid)


def submit(http: httpx.Client, callers: Callers, caller: str = "member") -> str:
    """Submit a job as somebody and return its id."""
    response = http.post("/v1/jobs", json={}, headers=callers.headers(caller))
    assert response.status_code == 201, response.text
    return str(response.json()["id"])
