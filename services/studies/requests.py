"""What the API takes for the verbs that say more than their name."""

from typing import Annotated, Any

from pydantic import Field

from xsam.services.jobs.states import FailureKind
from xsam.services.specs.base import Spec
from xsam.services.studies.limits import MAX_CONCURRENCY, MAX_TRIALS


class ExtendStudy(Spec):
    """More trials, wider ranges, or both."""

    num_trials: Annotated[int, Field(ge=0, le=MAX_TRIALS)] = 0
    """Trials to add to the main search; control arms with a space of their own get as many."""
    space: Annotated[dict[str, Any], Field(max_length=20)] = Field(default_factory=dict)
    """New dimensions for searched fields, each holding every value of the one before."""


class RetryFailed(Spec):
    """Which failed trials to try again."""

    kind: FailureKind | None = None
    """Only those that failed for this cause; by default all but diverged ones, which would diverge again."""


class UpdateStudy(Spec):
    """What can be changed while a study runs."""

    concurrency: Annotated[int, Field(ge=1, le=MAX_CONCURRENCY)]
    """Trials that run at once."""


class PromoteStudy(Spec):
    """Which trial becomes a job, and what is changed in it."""

    trial: Annotated[int, Field(ge=1, le=MAX_TRIALS * 10)] | None = None
    """Number of a trial; by default the best configuration of the search."""
    changes: Annotated[dict[str, Any], Field(max_length=50)] = Field(default_factory=dict)
    """A JSON merge patch (RFC 7396) on the job's specification, as in `{"epochs": 200}`: parts are merged, null removes
    a field, which then has its default."""
