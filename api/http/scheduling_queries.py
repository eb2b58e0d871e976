"""Query parameters of the line and of usage; unknown ones are refused."""

from datetime import date
from typing import Annotated

from pydantic import Field

from xsam.api.http.queries import Absent, Text, _Query
from xsam.services.scheduling import last_decision


class QueueQuery(_Query):
    """Which part of the line to read."""

    after: Annotated[int, Field(ge=0, le=last_decision.LINE_LENGTH)] = 0
    """`next_position` of the page before."""
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    """Jobs per page."""


class UsageQuery(_Query):
    """Whose usage to read, and of which days."""

    since: date | Absent = None
    """First day (UTC); by default 30 days before the last."""
    until: date | Absent = None
    """Last day (UTC), included; by default today."""
    team: Text | Absent = None
    """Usage of this team."""
