"""What the API takes for the verbs that say more than their name."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, model_validator

from xsam.services.errors import InvalidRequestError
from xsam.services.jobs.bulk import MAX_JOBS, Selection
from xsam.services.jobs.listing import JobFilter
from xsam.services.jobs.schemas import JobUpdate
from xsam.services.jobs.states import FailureKind, JobState
from xsam.services.specs.base import Spec, field_error
from xsam.services.specs.job import MAX_LABELS, JobName, LabelKey, LabelValue

JobIdText = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{1,32}$")]
PlainText = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=100)]
DayOrInstant = Annotated[
    str,
    StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}([Tt]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?([Zz]|[+-]\d{2}:\d{2}))?$"),
]
"""Text, so that a link keeps it as it was written."""
TeamName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=63)]


def instant_of(text: str | None, field: str, *, is_end: bool = False) -> datetime | None:
    """Return the instant that a text means: of a day its beginning, or its end.

    Raises:
        InvalidRequestError: there is no such day or time.
    """
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text.upper())
        if len(text) > len("2026-01-01"):
            return at.astimezone(UTC)
        return at.replace(tzinfo=UTC) + timedelta(days=1 if is_end else 0)
    except (ValueError, OverflowError) as e:
        message = f"{field} is {text!r}; allowed is a day (2026-03-01) or a time (2026-03-01T09:00:00Z)"
        raise InvalidRequestError(message, field=field) from e


class CloneJob(Spec):
    """What a copy of a job changes."""

    changes: Annotated[dict[str, Any], Field(max_length=50)] = Field(default_factory=dict)
    """A JSON merge patch (RFC 7396) on the specification: parts are merged, null removes a field, which then has its
    default."""


class JobMatch(Spec):
    """Jobs by what they are; all that is given must hold."""

    state: Annotated[tuple[JobState, ...], Field(max_length=len(JobState))] = ()
    """In any of these states."""
    name: JobName | None = None
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=MAX_LABELS)] = Field(default_factory=dict)
    team: TeamName | None = None
    user: PlainText | None = None
    q: PlainText | None = None
    """With this in the name, in any case, or at the beginning of the id."""
    optimizer: PlainText | None = None
    model: PlainText | None = None
    dataset: PlainText | None = None
    failure: Annotated[tuple[FailureKind, ...], Field(max_length=len(FailureKind))] = ()
    """Failed for any of these reasons."""
    since: DayOrInstant | None = None
    """Submitted on this day (UTC) or at this time, or later."""
    until: DayOrInstant | None = None
    """Submitted before this time, or up to the end of this day (UTC)."""

    def as_filter(self) -> JobFilter:
        """Return the filter that lists understand.

        Raises:
            InvalidRequestError: a time is none.
        """
        plain = ("name", "team", "user", "q", "optimizer", "model", "dataset", "labels")
        given = {name: getattr(self, name) for name in plain}
        since, until = instant_of(self.since, "where.since"), instant_of(self.until, "where.until", is_end=True)
        return JobFilter(states=self.state, failures=self.failure, since=since, until=until, **given)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self == JobMatch.model_construct():
            raise field_error("where", "where must say something: an empty one would mean every job there is")
        return self


class JobSelection(Spec):
    """Several jobs: by id, or all that match."""

    ids: Annotated[tuple[JobIdText, ...], Field(max_length=MAX_JOBS)] = ()
    where: JobMatch | None = None
    dry_run: bool = False
    """Only say which jobs there are; nothing is changed."""

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if bool(self.ids) == (self.where is not None):
            raise field_error("ids", "ids or where must be given, and not both")
        return self

    def chosen(self, visible_team: str | None) -> Selection:
        """Return the selection for a caller who sees this team, or all teams if None."""
        if self.where is None:
            return Selection(ids=self.ids, visible_team=visible_team)
        return Selection(where=self.where.as_filter(), visible_team=visible_team)


class JobsUpdate(JobSelection):
    """Several jobs, and what to change of each."""

    change: JobUpdate
