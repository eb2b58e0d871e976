"""What routes ask for: the service's parts, a session that reads or writes, and who is calling."""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Path, Request
from sqlalchemy.orm import Session

from services.db.session import Database
from services.errors import InvalidRequestError
from services.jobs.actor import Actor
from services.settings import Settings

LOCAL_TEAM = "default"
_NOT_NAME = re.compile(r"[^A-Za-z0-9._@-]")


@dataclass(frozen=True, slots=True)
class Service:
    """What one app serves from; built once by `create_app`.

    Args:
        settings: what the operator set.
        database: open for the life of the app.
        local_user: who calls, as long as callers don't identify themselves.
        closing: set when the server is about to stop, so that streams end.
    """

    settings: Settings
    database: Database
    local_user: str
    closing: threading.Event = field(default_factory=threading.Event)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]


def _read_session(service: ServiceDep) -> Iterator[Session]:
    with service.database.read() as session:
        yield session


def _write_session(service: ServiceDep) -> Iterator[Session]:
    with service.database.unit_of_work() as session:
        yield session


# scope="function": the transaction ends before the answer leaves, so a caller that reads its answer reads its write.
ReadSession = Annotated[Session, Depends(_read_session, scope="function")]
WriteSession = Annotated[Session, Depends(_write_session, scope="function")]


def _principal(service: ServiceDep) -> Actor:
    """Return who is calling: on a service without tokens, the user who runs it."""
    return Actor(user=service.local_user, team=LOCAL_TEAM)


PrincipalDep = Annotated[Actor, Depends(_principal)]

JobId = Annotated[str, Path(pattern=r"^[a-z0-9]{1,32}$", description="The job's id.", examples=["k7m2p9xw4q3t"])]


def no_query(request: Request) -> None:
    """Refuse query parameters on routes that take none, as the others refuse unknown ones.

    Raises:
        InvalidRequestError: there is one.
    """
    for name in request.query_params:
        raise InvalidRequestError(f"{name[:80]} is not a known query parameter; this route takes none", field=name[:80])


def local_user_name(name: str) -> str:
    """Return a system's user name as a caller's name, without characters that a label could not carry."""
    return _NOT_NAME.sub("-", name)[:63] or "local"
