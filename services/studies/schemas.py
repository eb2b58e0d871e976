"""What the API shows and takes of studies; what a submit takes is `xsam.services.studies.spec.StudySpec`."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue

from xsam.services.jobs.models import Job
from xsam.services.jobs.states import FailureKind, JobState, Wish
from xsam.services.schemas import Read
from xsam.services.specs.base import Spec
from xsam.services.studies.limits import MAX_CONCURRENCY, MAX_TRIALS
from xsam.services.studies.models import Trial
from xsam.services.studies.spec import StudySpec


class CauseRead(Read):
    """Why a study or one of its trials failed."""

    kind: FailureKind
    message: str

    @classmethod
    def of(cls, job: Job) -> Self | None:
        """Return the document for a row; None for one that has not failed."""
        return (
            None
            if job.failure_kind is None
            else cls(kind=FailureKind.of(job.failure_kind), message=job.failure_message or "")
        )


class TrialRead(Read):
    """One trial; everything else about it is at `/v1/jobs/{id}`."""

    id: str
    """The trial's id as a job."""
    number: int
    """Counted from 1 in the study."""
    arm: str
    """The optimizer."""
    phase: str
    """`search`, or `confirm`: the arm's best configuration on seeds that the search has not seen."""
    config: int
    """Trials of one configuration differ in the seed only."""
    seed: int
    params: dict[str, Any]
    """The searched values, by dotted path; of a ratio its factor."""
    state: JobState
    value: float | None
    """The objective; of a running trial so far."""
    grad_evals: int | None
    """Forward-backward passes so far."""
    epochs_done: int
    num_epochs: int
    train_s: float | None
    is_stopped_early: bool
    failure: CauseRead | None
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, trial: Trial, job: Job, *, value: float | None, grad_evals: int | None) -> Self:
        """Return the document for a trial's two rows; what it has measured may be newer than they are."""
        return cls.model_validate(
            {
                "id": job.id,
                **{name: getattr(trial, name) for name in _TRIAL_FIELDS},
                **{name: getattr(job, name) for name in _JOB_FIELDS},
                "value": value,
                "grad_evals": grad_evals,
                "train_s": (job.summary or {}).get("train_s"),
                "failure": CauseRead.of(job),
            }
        )


_TRIAL_FIELDS = ("number", "arm", "phase", "config", "seed", "params", "is_stopped_early")
_JOB_FIELDS = ("state", "epochs_done", "num_epochs", "started_at", "finished_at")


class TrialPage(Read):
    """A page of trials."""

    items: list[TrialRead]
    next_cursor: str | None
    """Pass it as `cursor`, with the same `sort`, for the next page; null on the last."""


class ConfigRead(Read):
    """A configuration over its seeds."""

    config: int
    params: dict[str, Any]
    mean: float
    num_seeds: int
    values: dict[int, float]
    """The objective by seed."""


class ConfirmationRead(Read):
    """How far the best configuration of an arm is trained again, on seeds that the search has not seen."""

    num_seeds: int
    """Asked for."""
    num_running: int
    num_failed: int
    values: dict[int, float]
    """The objective by seed, of those that have ended well."""
    mean: float | None
    """Of these; null while there is none."""


class ArmRead(Read):
    """One optimizer's search."""

    arm: str
    num_configs: int
    num_configs_done: int
    best: ConfigRead | None
    """Best configuration of the search."""
    confirmed: ConfigRead | None
    """The same configuration on seeds that the search has not seen, once all of them have a value."""
    confirmation: ConfirmationRead | None = None
    """The same while it goes on; null where no such seeds are asked for."""


class PairedTestRead(Read):
    """Differences between two arms that were trained on the same seeds."""

    num_pairs: int
    """Seeds compared."""
    wins: int
    """Seeds on which `arm` is better."""
    gain: float
    """Mean difference; positive means that `arm` is better."""
    gain_sd: float
    """Standard deviation of the difference over seeds."""
    low: float | None
    """Lower end of the mean difference's 95 % confidence interval."""
    high: float | None
    p_value: float | None
    """Two-sided paired t-test over the seeds."""


class ComparisonRead(PairedTestRead):
    """The study's optimizer against a control arm, each at its best, on the same seeds and compute."""

    arm: str
    against: str
    basis: str
    """`confirm`: on seeds that neither search has seen. `search`: on the seeds that chose the winners, which flatters
    whichever arm had more configurations."""
    value: float
    against_value: float
    grad_evals_ratio: float | None
    """Gradient evaluations of a trial of `arm` over those of one of `against`."""
    seconds_ratio: float | None
    """Likewise in seconds of training."""
    sentence: str
    """The same for people."""


class SpentRead(Read):
    """What a study has used."""

    grad_evals: int
    probe_forwards: int
    train_s: float
    """Seconds of training, of the trials that ended well."""
    gpu_hours: float
    wall_s: float
    """Since its first start, pauses included."""


class PredictionRead(Read):
    """When a study should end, from its own trials so far; early stopping can only bring it forward."""

    num_trials_left: int
    left_s: float
    ends_at: datetime


class StudyRead(Read):
    """A study and what it says so far."""

    id: str
    name: str | None
    team: str
    submitted_by: str
    state: JobState
    hold: str | None
    """`pause` or `stop`, where it was told so."""
    wish: Wish | None
    priority: int
    labels: dict[str, str]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempt: int
    concurrency: int
    num_trials: int
    """Trials planned in all, extensions and confirmation included."""
    num_by_state: dict[JobState, int]
    num_stopped_early: int
    best_trial: int | None
    """Number of the search's best trial."""
    best_value: float | None
    arms: list[ArmRead]
    comparisons: list[ComparisonRead]
    spent: SpentRead
    prediction: PredictionRead | None
    ended_by: str | None
    """`finished`, `stop` or `budget`."""
    failure: CauseRead | None
    space: dict[str, Any]
    """The space in force: the specification's, or a wider one."""
    spec: StudySpec


class StudyBrief(Read):
    """A study in a list."""

    id: str
    name: str | None
    team: str
    submitted_by: str
    state: JobState
    hold: str | None
    created_at: datetime
    finished_at: datetime | None
    num_trials: int
    """Trials planned in all, extensions and confirmation included."""
    num_by_state: dict[JobState, int]
    best_value: float | None
    """Of the search, all arms."""


class StudyPage(Read):
    """A page of studies, newest first."""

    items: list[StudyBrief]
    next_cursor: str | None


class ArmCostRead(Read):
    """What one arm will take, from the mean over its space; early stopping saves some of it."""

    arm: str
    num_configs: int
    num_trials: int
    num_confirm_trials: int
    grad_evals: int | None
    """null where only the data's files can tell."""
    probe_forwards: int | None


class StudyPreview(Read):
    """What a study would take; nothing was queued."""

    num_trials: int
    grad_evals: int | None
    probe_forwards: int | None
    seconds_per_grad_eval: float | None
    """Median of comparable runs: same model, dataset, batch size and resources; null if there was none."""
    num_comparable: int
    work_s: float | None
    """Seconds of training of all trials together."""
    wall_s: float | None
    """The same with so many trials at once as concurrency and cluster allow."""
    gpu_hours: float | None
    arms: list[ArmCostRead]
    spec: StudySpec
    """As it would be stored, presets and defaults filled in."""


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


class PointRead(Read):
    """One trial as plots need it."""

    number: int
    id: str
    """The trial's id as a job."""
    arm: str
    phase: str
    config: int
    """Trials of one configuration differ in their seeds only."""
    seed: int
    state: JobState
    params: dict[str, Any]
    value: float | None
    """Null where the trial failed, diverged or was cancelled."""
    grad_evals: int | None
    train_s: float | None
    is_stopped_early: bool
    failure_kind: str | None
    best: float | None
    """Best value of this and all earlier trials of the arm and phase; null while none has one."""


class AxisRead(Read):
    """A searched field."""

    path: str
    kind: Literal["linear", "log", "int", "choice"]
    low: float | None
    high: float | None
    values: list[JsonValue] | None
    """Of a choice."""


class MapCell(Read):
    """Trials that fall together in a map of two axes."""

    column: int
    row: int
    best: float
    mean: float
    num: int
    value: float
    """The best, the mean or the number, as asked for."""
    epoch_grad_evals: float | None
    """What an epoch costs here, on average."""
    trials: list[int]
    """Numbers of the trials."""


class MapRead(Read):
    """What the trials over two axes are worth."""

    across: str
    down: str
    columns: list[str]
    rows: list[str]
    cells: list[MapCell]


class PlotsRead(Read):
    """The data of the usual plots: history, parallel coordinates, slices, a map, importances."""

    as_of: datetime | None = None
    """Pass it as `after` to get only points that are newer."""
    axes: list[AxisRead]
    points: list[PointRead]
    """Trials that have ended, by number."""
    map: MapRead | None
    """The best over the first two axes, the one with many values across; null with fewer."""
    importances: dict[str, float]
    """Share of the objective's variation among the better trials that each field explains (PED-ANOVA); empty while
    there are too few trials."""


class Measured(Read):
    """A trial with a value, from rows or from an answer."""

    number: int
    arm: str
    params: dict[str, Any]
    value: float
    grad_evals: int | None
    num_epochs: int | None = None
    """That it has run."""


class MapStat(StrEnum):
    """What a map shows of the trials in a cell."""

    BEST = "best"
    MEAN = "mean"
    COUNT = "count"
