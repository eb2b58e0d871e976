"""Path segments and query parameters of the routes about teams, users and tokens."""

from typing import Annotated

from fastapi import Path
from pydantic import Field

from xsam.api.http.queries import LARGEST_EVENT_ID, Absent, _Query
from xsam.services.teams.schemas import TeamName, UserName

TeamPath = Annotated[TeamName, Path(description="The team's name.", examples=["vision"])]
UserPath = Annotated[UserName, Path(description="The user's name.", examples=["ann"])]
TokenId = Annotated[str, Path(pattern=r"^[a-z0-9]{1,32}$", description="The token's id.", examples=["k7m2p9xw4q3t"])]
Limit = Annotated[int, Field(ge=1, le=200)]


class TeamsQuery(_Query):
    """Which teams to list."""

    after: TeamName | Absent = None
    """Teams that follow this one by name."""
    limit: Limit = 200
    """Teams per page."""


class UsersQuery(_Query):
    """Which users to list."""

    after: UserName | Absent = None
    """Users that follow this one by name."""
    limit: Limit = 200
    """Users per page."""


class TokensQuery(_Query):
    """Which tokens to list."""

    cursor: Annotated[str | Absent, Field(max_length=500)] = None
    """`next_cursor` of the page before."""
    limit: Limit = 50
    """Tokens per page."""


class AuditQuery(_Query):
    """Which changes to list."""

    before: Annotated[int, Field(ge=1, le=LARGEST_EVENT_ID)] | Absent = None
    """`next_before` of the page before."""
    limit: Limit = 100
    """Changes per page."""
