"""Sessions of browsers: begin, list, end; the page sets and reads their cookie."""

from typing import Annotated

from fastapi import Header, Response, status

from xsam.api.http.dependencies import PrincipalDep, ReadSession, WriteSession
from xsam.api.http.queries import Absent, SessionId
from xsam.api.http.router import Router
from xsam.services.teams import sessions
from xsam.services.teams.schemas import SessionCreated, SessionRead, SessionsRead

router = Router("/v1/sessions", "tokens")


@router.route("POST", "", "Begin a session", refuses=("conflict",), status_code=status.HTTP_201_CREATED)
def begin_session(
    session: WriteSession,
    principal: PrincipalDep,
    response: Response,
    user_agent: Annotated[str | Absent, Header(include_in_schema=False)] = None,
) -> SessionCreated:
    """Begin a browser's session with the token that the call carries, and show its secret, this once.

    It ends with its token, when it is not used for twelve hours, and after a week.
    """
    row, secret = sessions.begin(session, principal, user_agent=user_agent)
    response.headers["Cache-Control"] = "no-store"
    return SessionCreated.with_secret(row, secret)


@router.route("GET", "", "List sessions")
def list_sessions(session: ReadSession, principal: PrincipalDep) -> SessionsRead:
    """Return one's own open sessions, with whichever of one's tokens they were begun."""
    rows = sessions.list_own(session, principal)
    return SessionsRead(items=[SessionRead.model_validate(row) for row in rows])


@router.route("DELETE", "", "End all sessions", status_code=status.HTTP_204_NO_CONTENT)
def end_sessions(session: WriteSession, principal: PrincipalDep) -> None:
    """Sign out everywhere: end all of one's own sessions, the present one included."""
    sessions.end_all(session, principal)


@router.route(
    "DELETE", "/{session_id}", "End a session", refuses=("not_found",), status_code=status.HTTP_204_NO_CONTENT
)
def end_session(session_id: SessionId, session: WriteSession, principal: PrincipalDep) -> None:
    """End one of one's own sessions."""
    sessions.end(session, principal, session_id)
