"""Who may make which request: who is calling, whether they may write, and whether the thing is theirs to see."""

import logging
import re
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from xsam.services.checks import service as checks
from xsam.services.db.session import AWAY, Database
from xsam.services.errors import ForbiddenError, NotFoundError, UnauthenticatedError
from xsam.services.jobs import service as jobs
from xsam.services.lab import service as lab
from xsam.services.requirements import service as requirements
from xsam.services.settings import is_loopback
from xsam.services.teams import sessions, tokens
from xsam.services.teams.roles import Principal, Role, require_role
from xsam.services.teams.service import DEFAULT_TEAM

logger = logging.getLogger(__name__)

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""They change nothing, so every role may use them."""

OF_ONESELF = "/v1/sessions"
"""What is below changes nothing of the team's, so every role may change it."""

RECHECK_S = 5.0
"""How long a stream may outlive its caller's token."""

_NO_TOKEN = "this service needs a token: send it as `Authorization: Bearer TOKEN`"  # noqa: S105 - a sentence
_ID = re.compile(r"[a-z0-9]{1,32}")

OWNERS: dict[str, tuple[str, Callable[[Session, str], str | None]]] = {
    "job_id": ("job", jobs.team_of),
    "study_id": ("study", jobs.team_of),  # a study is a job of another kind
    "check_id": ("check", checks.team_of),
    "requirements_id": ("requirements", requirements.team_of),
    "run_id": ("lab run", lab.team_of),
}
"""By the name of a path parameter: what it identifies, and which team that belongs to (None where there is none)."""


def local_principal(user: str) -> Principal:
    """Return who calls a service without tokens: the user who runs it, who may do everything."""
    return Principal(user=user, team=DEFAULT_TEAM, role=Role.ADMIN, is_admin=True)


def check_is_local(host: str | None, origin: str | None) -> None:
    """Refuse requests to a service without tokens that a page of a foreign site makes through the user's browser.

    Such a page can point its own name at 127.0.0.1 (DNS rebinding), which the Host header shows, or post across sites,
    which the Origin header shows.

    Args:
        host: name in the Host header.
        origin: the Origin header.

    Raises:
        ForbiddenError: one of them is not this machine's loopback.
    """
    named = {"Host": host, "Origin": None if origin is None else urlsplit(origin).hostname or origin}
    for header, name in named.items():
        if name is not None and not is_loopback(name):
            raise ForbiddenError(
                f"the {header} header names {name[:80]!r}; a service without tokens answers only to loopback names"
            )


def authenticate(session: Session, token: str | None, secret: str | None = None) -> tokens.Authenticated:
    """Return who a token speaks for, or, where there is none, a browser's session.

    Raises:
        UnauthenticatedError: there is neither, or it is not valid.
    """
    if token is not None:
        return tokens.authenticate(session, token)
    if secret is None:
        raise UnauthenticatedError(_NO_TOKEN)
    signed_in = sessions.authenticate(session, secret)
    return tokens.Authenticated(signed_in.principal, signed_in.needs_touch)


def check_request(
    session: Session, principal: Principal, method: str, path: str, path_params: Mapping[str, str]
) -> None:
    """Check what every request has in common, so that no route can forget it.

    Raises:
        ForbiddenError: it would change something, and the caller may only read.
        NotFoundError: it names a thing of another team; the sentence is the one for a thing that does not exist.
    """
    if method not in SAFE_METHODS and not path.startswith(OF_ONESELF):
        require_role(principal, Role.MEMBER)
    if principal.is_admin:
        return
    for name, (what, team_of) in OWNERS.items():
        thing_id = path_params.get(name)
        if thing_id is None or not _ID.fullmatch(thing_id):  # the route's own check answers for what is no id
            continue
        team = team_of(session, thing_id)
        if team is None or not principal.sees(team):
            raise NotFoundError(f"no {what} {thing_id}", field=name)


def visible_team(principal: Principal, wanted: str | None) -> str | None:
    """Return the team whose things a list shows: the one asked for, or what the caller sees (None is all teams).

    Raises:
        ForbiddenError: another team than the caller's own is asked for.
    """
    if principal.is_admin:
        return wanted
    if wanted not in (None, principal.team):
        raise ForbiddenError(f"team is {wanted!r}; your token sees team {principal.team} only", field="team")
    return principal.team


class Admission:
    """The right to an answer that goes on: it ends soon after the caller's token or session does.

    Args:
        database: of the service.
        principal: who was admitted when the answer began.
    """

    def __init__(self, database: Database, principal: Principal) -> None:
        self._database = database
        self._principal = principal
        self._next_look_s = time.monotonic() + RECHECK_S

    async def holds(self) -> bool:
        """Return whether to go on; looks at the database now and then."""
        if self._principal.token_id is None or time.monotonic() < self._next_look_s:
            return True
        self._next_look_s = time.monotonic() + RECHECK_S
        try:
            return await run_in_threadpool(self._look, self._principal.token_id)
        except AWAY:  # nothing comes out of it either, so the stream may wait for it
            return True

    def _look(self, token_id: str) -> bool:
        session_id = self._principal.session_id
        with self._database.read() as session:
            if session_id is not None:
                return sessions.is_valid(session, session_id)
            return tokens.is_valid(session, token_id)


def note_use(database: Database, principal: Principal) -> None:
    """Write when a token or a session was used, if that is possible now: a read must not fail on a busy database."""
    try:
        with database.unit_of_work() as session:
            tokens.touch(session, principal.token_id or "")
            if principal.session_id is not None:
                sessions.touch(session, principal.session_id)
    except DBAPIError:
        logger.warning("the use of token %s was not noted", principal.token_id, exc_info=True)
