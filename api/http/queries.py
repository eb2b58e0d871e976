"""Path segments, query parameters and headers; unknown ones are refused, as unknown fields of a body are.

A filter that is misspelt and ignored would show all jobs as if they matched.
"""

import re
from dataclasses import replace
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from fastapi import Header, Path
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from xsam.services.errors import InvalidRequestError
from xsam.services.jobs.bodies import DayOrInstant, instant_of
from xsam.services.jobs.listing import CountBy, JobFilter, JobSort
from xsam.services.jobs.states import FailureKind, JobState
from xsam.services.lab.spec import FigureName
from xsam.services.reports.occupancy import MOST_SAMPLES
from xsam.services.reports.spending import SpendingBy
from xsam.services.scheduling import last_decision
from xsam.services.specs.base import PLAIN
from xsam.services.specs.job import MAX_LABELS
from xsam.services.specs.secrets import SecretName
from xsam.services.studies import ranges
from xsam.services.studies.reading import TrialFilter, TrialSort
from xsam.services.studies.schemas import MapStat
from xsam.services.teams.schemas import TeamName, UserName

Absent = SkipJsonSchema[None]
"""The default of a parameter that may be left out; there is no way to send null in a URL or a header."""

LARGEST_EVENT_ID = 2**63 - 1
LARGEST_COUNT = 2**31 - 1

Text = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=100), PLAIN]
LabelEquals = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*=[^\x00-\x1f\x7f]*$", max_length=319), PLAIN
]
After = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
Limit = Annotated[int, Field(ge=1, le=200)]
RangeText = Annotated[
    str, StringConstraints(pattern=r"^[a-z_]+(\.[a-z_0-9]+)*:-?[0-9.eE+-]*\.\.[0-9.eE+-]*$", max_length=200)
]
TrialSortText = Annotated[
    str,
    StringConstraints(pattern=r"^-?(number|value|grad_evals|seconds|params\.[a-z_]+(\.[a-z_0-9]+)*)$", max_length=120),
]
MAX_RANGES = 20
Points = Annotated[int, Field(ge=10, le=10_000)]
MOST_COMPARED = 20
Cursor = Annotated[str | Absent, Field(max_length=500)]

_ID = r"^[a-z0-9]{1,32}$"
_EXAMPLES = ["k7m2p9xw4q3t"]
JobId = Annotated[str, Path(pattern=_ID, description="The job's id.", examples=_EXAMPLES)]
StudyId = Annotated[str, Path(pattern=_ID, description="The study's id.", examples=_EXAMPLES)]
RequirementsId = Annotated[str, Path(pattern=_ID, description="The requirements' id.", examples=_EXAMPLES)]
CheckId = Annotated[str, Path(pattern=_ID, description="The check's id.", examples=_EXAMPLES)]
WebhookId = Annotated[str, Path(pattern=_ID, description="The webhook's id.", examples=_EXAMPLES)]
LabRunId = Annotated[str, Path(pattern=_ID, description="The lab run's id.", examples=_EXAMPLES)]
TokenId = Annotated[str, Path(pattern=_ID, description="The token's id.", examples=_EXAMPLES)]
SessionId = Annotated[str, Path(pattern=_ID, description="The session's id.", examples=_EXAMPLES)]
TeamPath = Annotated[TeamName, Path(description="The team's name.", examples=["vision"])]
SecretPath = Annotated[SecretName, Path(description="The secret's name.", examples=["WANDB_API_KEY"])]
UserPath = Annotated[UserName, Path(description="The user's name.", examples=["ann"])]

IdempotencyKey = Annotated[
    Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]+$", max_length=255)] | Absent,
    Header(
        alias="Idempotency-Key",
        description="A name for this submit that you make up; sent again, it returns the first job, not a second.",
        examples=["nightly-2026-03-01"],
    ),
]
LastEventId = Annotated[
    Annotated[int, Field(ge=0, le=LARGEST_EVENT_ID)] | Absent,
    Header(alias="Last-Event-ID", description="Id of the last event that arrived; the stream goes on after it."),
]


ChangesCursor = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,18}\.[0-9]{1,11}$")]
LastChange = Annotated[
    ChangesCursor | Absent,
    Header(alias="Last-Event-ID", description="Id of the last message that arrived; the stream goes on after it."),
]


def _written_out(given: Any) -> Any:
    if isinstance(given, str) and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", given):
        raise PydanticCustomError("day", "Input should be a day as YYYY-MM-DD")  # pydantic would read 0 as 1970-01-01
    return given


Day = Annotated[date, BeforeValidator(_written_out)]


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class _Listed(_Query):
    """What jobs and studies are found by."""

    state: list[JobState] = []
    """In any of these states; repeat the parameter for several."""
    team: Text | Absent = None
    """Of this team."""
    user: Text | Absent = None
    """Submitted by this user."""
    name: Text | Absent = None
    """Of exactly this name."""
    q: Text | Absent = None
    """With this in the name, in any case, or at the beginning of the id."""
    label: Annotated[list[LabelEquals], Field(max_length=MAX_LABELS)] = []
    """With this label, as `key=value`; repeated, all must match."""
    since: DayOrInstant | Absent = None
    """Submitted on this day (UTC) or at this time, or later."""
    until: DayOrInstant | Absent = None
    """Submitted before this time, or up to the end of this day (UTC)."""

    def as_filter(self) -> JobFilter:
        """Return the filter that the service understands.

        Raises:
            InvalidRequestError: one label is asked for twice with different values, or a time is none.
        """
        labels: dict[str, str] = {}
        for text in self.label:
            key, _, value = text.partition("=")
            if labels.setdefault(key, value) != value:
                raise InvalidRequestError(
                    f"label {key} is asked to be {labels[key]!r} and {value!r}; no job can have both", field="label"
                )
        return JobFilter(
            states=self.state,
            team=self.team,
            user=self.user,
            name=self.name,
            q=self.q,
            labels=labels,
            since=instant_of(self.since, "since"),
            until=instant_of(self.until, "until", is_end=True),
        )


class StudiesQuery(_Listed):
    """Which studies to list."""

    cursor: Cursor = None
    """`next_cursor` of the page before."""
    limit: Limit = 50
    """Studies per page."""


class LabRunsQuery(_Query):
    """Which runs of figures to list."""

    figure: FigureName | Absent = None
    """Of this figure."""
    team: Text | Absent = None
    """Of this team."""
    cursor: Cursor = None
    """`next_cursor` of the page before."""
    limit: Limit = 50
    """Runs per page."""


class JobsWanted(_Listed):
    """Which jobs are meant."""

    optimizer: Text | Absent = None
    """With this optimizer."""
    model: Text | Absent = None
    """Of this model."""
    dataset: Text | Absent = None
    """On this dataset."""
    failure: list[FailureKind] = []
    """Failed for any of these reasons; repeat the parameter for several."""
    study: Annotated[str | Absent, Field(pattern=_ID)] = None
    """Trials of this study, instead of jobs that stand for themselves."""

    def as_filter(self) -> JobFilter:
        """Return the filter that the service understands, but for the study, which it has to look up.

        Raises:
            InvalidRequestError: one label is asked for twice with different values, or a time is none.
        """
        found = super().as_filter()
        return replace(found, optimizer=self.optimizer, model=self.model, dataset=self.dataset, failures=self.failure)


class JobFields(StrEnum):
    """How much of each job a list shows."""

    ALL = "all"
    BRIEF = "brief"


class JobsQuery(JobsWanted):
    """Which jobs to list, and how."""

    sort: JobSort = JobSort.CREATED_DESC
    """Order; a minus descends. Jobs without a value come last in either."""
    fields: JobFields = JobFields.ALL
    """`brief`: without the specification, with why a job waits and what it has cost so far."""
    cursor: Cursor = None
    """`next_cursor` of the page before or `previous_cursor` of the one after, made with the same `sort`."""
    limit: Limit = 50
    """Jobs per page."""


class JobCountQuery(JobsWanted):
    """Which jobs to count, and by what."""

    by: Annotated[list[CountBy], Field(max_length=len(CountBy))] = []
    """Count apart by these; repeat the parameter for several."""


class ChangesQuery(_Query):
    """From where on to read what has changed."""

    after: ChangesCursor | Absent = None
    """`cursor` of an earlier answer, of any replica; by default what changes from now on."""


class UploadQuery(_Query):
    """Where an uploaded folder stood."""

    commit: Annotated[str | Absent, StringConstraints(pattern=r"^[0-9a-f]{7,64}$")] = None
    """Git's, where the folder lies in a repository."""
    is_dirty: bool = False
    """Whether files differ from the commit."""


class MetricsQuery(_Query):
    """Which epochs to read."""

    after: After = 0
    """Only epochs above this one."""
    points: Points | Absent = None
    """At most so many, thinned so that curves keep their lows and highs; by default all."""


class SeveralMetricsQuery(_Query):
    """Which jobs' epochs to read."""

    job: Annotated[list[Annotated[str, Field(pattern=_ID)]], Field(min_length=1, max_length=MOST_COMPARED)]
    """These jobs; repeat the parameter for several."""
    points: Points | Absent = None
    """At most so many of each; by default all."""


class AlphaMapQuery(_Query):
    """How fine a map of probe curves is."""

    columns: Annotated[int, Field(ge=1, le=1000)] = 200
    """At most so many; neighbouring searches are averaged."""
    rows: Annotated[int, Field(ge=2, le=256)] = 64
    """At most so many values of alpha."""


class AlphaQuery(_Query):
    """Which alpha estimates to read."""

    after: After = 0
    """Only estimates after this training step."""
    points: Points | Absent = None
    """At most so many, thinned so that the line of alpha* keeps its lows and highs; by default all."""


class EventsQuery(_Query):
    """Which events to read."""

    after: Annotated[int, Field(ge=0, le=LARGEST_EVENT_ID)] = 0
    """Only events after the one with this id."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 500
    """Events per answer; a stream sends all."""


class LogsQuery(_Query):
    """Which log lines to read."""

    attempt: Annotated[int, Field(ge=1, le=LARGEST_COUNT)] | Absent = None
    """Lines of this attempt; by default of the latest."""
    rank: Annotated[int, Field(ge=0, le=LARGEST_COUNT)] | Absent = None
    """Lines of this rank; by default of all, merged by time."""
    tail: Annotated[int, Field(ge=0, le=1_000_000)] | Absent = None
    """Only the last N lines there are now."""
    follow: bool = False
    """Keep the answer open and send lines as they come, until the job ends."""


class LinesQuery(_Query):
    """Which numbered log lines to read."""

    attempt: Annotated[int, Field(ge=1, le=LARGEST_COUNT)] | Absent = None
    """Lines of this attempt; by default of the latest."""
    rank: Annotated[int, Field(ge=0, le=LARGEST_COUNT)] | Absent = None
    """Lines of this rank, numbered by themselves; by default of all, merged by time."""
    from_line: Annotated[int, Field(ge=1, le=LARGEST_COUNT)] | Absent = None
    """Lines from this number on; by default the last ones."""
    before: Annotated[int, Field(ge=1, le=LARGEST_COUNT)] | Absent = None
    """Lines below this number."""
    find: Annotated[Text, StringConstraints(min_length=1)] | Absent = None
    """Only lines with this text, in any case."""
    limit: Annotated[int, Field(ge=0, le=5000)] = 500
    """Lines at most; 0 only counts."""


class QueueQuery(_Query):
    """Which part of the queue to read."""

    after: Annotated[int, Field(ge=0, le=last_decision.LINE_LENGTH)] = 0
    """`next_position` of the page before."""
    limit: Limit = 50
    """Jobs per page."""


class UsageQuery(_Query):
    """Whose usage to read, and of which days."""

    since: Day | Absent = None
    """First day (UTC); by default 30 days before the last."""
    until: Day | Absent = None
    """Last day (UTC), included; by default today."""
    team: Text | Absent = None
    """Usage of this team."""


class _Span(_Query):
    """A time."""

    since: DayOrInstant | Absent = None
    """A day (UTC) or a time; by default a day before the end."""
    until: DayOrInstant | Absent = None
    """A time, or a day, which is included; by default now."""

    def ends(self) -> tuple[datetime | None, datetime | None]:
        """Return both ends.

        Raises:
            InvalidRequestError: one of them is no time.
        """
        return instant_of(self.since, "since"), instant_of(self.until, "until", is_end=True)


class OccupancyQuery(_Span):
    """Which part of the cluster's past to read."""

    node: Text | Absent = None
    """Only this node."""


class SamplesQuery(_Span):
    """Which samples to read."""

    points: Annotated[int, Field(ge=10, le=MOST_SAMPLES)] = MOST_SAMPLES
    """At most so many."""


class SpendingQuery(_Span):
    """What usage to sum, and by what."""

    by: SpendingBy = SpendingBy.OPTIMIZER
    """What to sum by."""
    team: Text | Absent = None
    """Usage of this team."""
    limit: Limit = 50
    """So many are shown apart; the others together."""


class ExportFormat(StrEnum):
    """Files of all trials."""

    CSV = "csv"
    PARQUET = "parquet"


class _TrialsWanted(_Query):
    state: Annotated[list[JobState], Field(default_factory=list)]
    """Trials in any of these states; repeat the parameter for several."""
    arm: Text | Absent = None
    """Trials of this optimizer."""
    phase: Text | Absent = None
    """`search` or `confirm`."""
    stopped_early: bool | Absent = None
    """Trials that the early stopper ended, or the others."""
    range: Annotated[list[RangeText], Field(default_factory=list, max_length=MAX_RANGES)]
    """Trials with this between two numbers, ends included: `optimizer.rho:0.01..0.1`, `value:0.9..`,
    `grad_evals:..5000`; repeated, all must hold."""
    sort: TrialSortText = TrialSort.NUMBER
    """`number`, `value`, `grad_evals`, `seconds`, or a searched field (`params.optimizer.rho`); a minus before it
    descends. Trials without a value come last in either."""

    def as_filter(self) -> TrialFilter:
        """Return the filter that the service understands."""
        return TrialFilter(
            states=self.state,
            arm=self.arm,
            phase=self.phase,
            stopped_early=self.stopped_early,
            ranges=[ranges.Range.parse(text) for text in self.range],
        )


class PlotsQuery(_Query):
    """Which points to draw."""

    after: DayOrInstant | Absent = None
    """`as_of` of an earlier answer: only what is newer, or a little older."""
    phase: list[Literal["search", "confirm"]] = []
    """Trials of this phase, by default of the search; repeat the parameter for both."""


class MapQuery(_Query):
    """Which map to draw."""

    across: Text | Absent = None
    """A searched field; by default the first two, the one with many values across."""
    down: Text | Absent = None
    """Another one."""
    stat: MapStat = MapStat.BEST
    """What a cell shows of its trials."""
    arm: Text | Absent = None
    """Of this arm; by default the main one."""


class CurvesQuery(_Query):
    """Which trials' curves to read."""

    top: Annotated[int, Field(ge=1, le=200)] = 20
    """Of at most so many configurations: the best ones, then those that run; each with all of its seeds."""
    arm: Text | Absent = None
    """Of this arm; by default of all."""
    phase: Annotated[Literal["search", "confirm"] | Absent, Field()] = None
    """Of this phase; by default of both."""
    points: Points | Absent = None
    """About so many epochs of each, evenly spaced; by default all."""


class TrialsQuery(_TrialsWanted):
    """Which trials to list."""

    cursor: Cursor = None
    """`next_cursor` of the page before, made with the same `sort`."""
    limit: Annotated[int, Field(ge=1, le=500)] = 50
    """Trials per page."""


class ExportQuery(_TrialsWanted):
    """Which trials to export, and how."""

    format: ExportFormat = ExportFormat.CSV
    """The file's format."""


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

    cursor: Cursor = None
    """`next_cursor` of the page before."""
    limit: Limit = 50
    """Tokens per page."""


class AuditQuery(_Query):
    """Which changes to list."""

    before: Annotated[int, Field(ge=1, le=LARGEST_EVENT_ID)] | Absent = None
    """`next_before` of the page before."""
    limit: Limit = 100
    """Changes per page."""
