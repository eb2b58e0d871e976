"""What the doors show of studies; what they take is `xsam.services.studies.spec.StudySpec`."""

from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from xsam.services.jobs.models import Job
from xsam.services.jobs.states import FailureKind, JobState, Wish
from xsam.services.schemas import Read
from xsam.services.studies.spec import StudySpec

if TYPE_CHECKING:  # clients read these documents and need not load a statistics library
    from xsam.services.studies.answers import Answer, ArmAnswer, Comparison
    from xsam.services.studies.cost import StudyCost
    from xsam.services.studies.models import Study
    from xsam.services.studies.pages import TrialRow
    from xsam.services.studies.results import ConfigResult


class CauseRead(Read):
    """Why a study or one of its trials failed."""

    kind: FailureKind
    message: str


def _cause(job: Job) -> CauseRead | None:
    if job.failure_kind is None:
        return None
    return CauseRead(kind=FailureKind(job.failure_kind), message=job.failure_message or "")


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
    def of(cls, row: "TrialRow") -> Self:
        """Return the document for a row."""
        trial, job = row.trial, row.job
        return cls.model_validate(
            {
                "id": job.id,
                **{name: getattr(trial, name) for name in _TRIAL_FIELDS},
                **{name: getattr(job, name) for name in _JOB_FIELDS},
                "value": row.value,
                "grad_evals": row.grad_evals,
                "train_s": (job.summary or {}).get("train_s"),
                "failure": _cause(job),
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

    @classmethod
    def of(cls, result: "ConfigResult") -> Self | None:
        """Return the document; None for a configuration that not all its seeds speak for."""
        if result.mean is None:
            return None
        values = result.values
        return cls(config=result.config, params=result.point, mean=result.mean, num_seeds=len(values), values=values)


class ArmRead(Read):
    """One optimizer's search."""

    arm: str
    num_configs: int
    num_configs_done: int
    best: ConfigRead | None
    """Best configuration of the search."""
    confirmed: ConfigRead | None
    """The same configuration on seeds that the search has not seen."""

    @classmethod
    def of(cls, answer: "ArmAnswer") -> Self:
        """Return the document."""
        return cls(
            arm=answer.arm.name,
            num_configs=answer.arm.num_configs,
            num_configs_done=answer.num_configs_done,
            best=None if answer.best is None else ConfigRead.of(answer.best),
            confirmed=None if answer.confirmed is None else ConfigRead.of(answer.confirmed),
        )


class ComparisonRead(Read):
    """The study's optimizer against a control arm, each at its best, on the same seeds and compute."""

    arm: str
    against: str
    basis: str
    """`confirm`: on seeds that neither search has seen. `search`: on the seeds that chose the winners, which flatters
    whichever arm had more configurations."""
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
    value: float
    against_value: float
    grad_evals_ratio: float | None
    """Gradient evaluations of a trial of `arm` over those of one of `against`."""
    seconds_ratio: float | None
    """Likewise in seconds of training."""
    sentence: str
    """The same for people."""

    @classmethod
    def of(cls, found: "Comparison") -> Self:
        """Return the document."""
        test = found.test
        return cls(
            arm=found.arm,
            against=found.against,
            basis=found.basis,
            num_pairs=test.num_pairs,
            wins=test.wins,
            gain=test.gain,
            gain_sd=test.gain_sd,
            low=test.low,
            high=test.high,
            p_value=test.p_value,
            value=found.value,
            against_value=found.against_value,
            grad_evals_ratio=found.grad_evals_ratio,
            seconds_ratio=found.seconds_ratio,
            sentence=_sentence(found),
        )


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

    @classmethod
    def of(cls, job: Job, study: "Study", found: "Answer") -> Self:
        """Return the document."""
        plain = {name: getattr(job, name) for name in _STUDY_FIELDS}
        return cls.model_validate(
            {
                **plain,
                "hold": study.hold,
                "concurrency": study.concurrency,
                "space": study.space,
                "num_trials": found.num_trials,
                "num_by_state": found.num_by_state,
                "num_stopped_early": found.num_stopped_early,
                "best_trial": None if found.best is None else found.best.number,
                "best_value": None if found.best is None else found.best.value,
                "arms": [ArmRead.of(arm) for arm in found.arms],
                "comparisons": [ComparisonRead.of(comparison) for comparison in found.comparisons],
                "spent": SpentRead.model_validate(found.spent),
                "prediction": None if found.prediction is None else PredictionRead.model_validate(found.prediction),
                "ended_by": (job.summary or {}).get("ended_by"),
                "failure": _cause(job),
            }
        )


_STUDY_FIELDS = (
    "id",
    "name",
    "team",
    "submitted_by",
    "state",
    "wish",
    "priority",
    "labels",
    "created_at",
    "started_at",
    "finished_at",
    "attempt",
    "spec",
)


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

    @classmethod
    def of(cls, spec: StudySpec, cost: "StudyCost") -> Self:
        """Return the document."""
        names = (name for name in cls.model_fields if name not in ("arms", "spec"))
        return cls.model_validate(
            {
                **{name: getattr(cost, name) for name in names},
                "arms": [ArmCostRead.model_validate(arm) for arm in cost.arms],
                "spec": spec,
            }
        )


def _sentence(found: "Comparison") -> str:
    test = found.test
    spread = f" ± {test.gain_sd:.2g} over {test.num_pairs} seeds"
    verdict = "the seeds do not vary"
    if test.p_value is not None and test.low is not None and test.high is not None:
        verdict = f"95 % interval {test.low:+.2g} to {test.high:+.2g}, p = {test.p_value:.2g}"
    price = ""
    if found.grad_evals_ratio is not None:
        price = f"; it takes {found.grad_evals_ratio:.2f} times the gradient evaluations"
        if found.seconds_ratio is not None:
            price += f" and {found.seconds_ratio:.2f} times the seconds"
    return f"{found.arm} {test.gain:+.2g}{spread} against {found.against} ({verdict}){price}"
