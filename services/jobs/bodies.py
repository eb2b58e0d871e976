"""What the API takes for the verbs that say more than their name."""

from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, model_validator

from xsam.services.jobs.bulk import MAX_JOBS, Selection
from xsam.services.jobs.schemas import JobUpdate
from xsam.services.jobs.service import JobFilter
from xsam.services.jobs.states import JobState
from xsam.services.specs.base import Spec, field_error
from xsam.services.specs.job import MAX_LABELS, JobName, LabelKey, LabelValue

JobIdText = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{1,32}$")]
TeamName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=63)]


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

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self == JobMatch.model_construct():
            raise field_error("where", "where must say something: an empty one would mean every job there is")
        return self


class JobSelection(Spec):
    """Several jobs: by id, or all that match."""

    ids: Annotated[tuple[JobIdText, ...], Field(max_length=MAX_JOBS)] = ()
    where: JobMatch | None = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if bool(self.ids) == (self.where is not None):
            raise field_error("ids", "ids or where must be given, and not both")
        return self

    def chosen(self, visible_team: str | None) -> Selection:
        """Return the selection for a caller who sees this team, or all teams if None."""
        if self.where is None:
            return Selection(ids=self.ids, visible_team=visible_team)
        where = JobFilter(states=self.where.state, name=self.where.name, labels=self.where.labels, team=self.where.team)
        return Selection(where=where, visible_team=visible_team)


class JobsUpdate(JobSelection):
    """Several jobs, and what to change of each."""

    change: JobUpdate
