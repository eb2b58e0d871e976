"""JobSpec: everything one training job says, checked as a whole before anything is queued."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from xsam.services.specs.base import PLAIN, Options, Spec, field_error
from xsam.services.specs.dataset import Dataset, Digits, TaskDataset
from xsam.services.specs.model import Model, SmallCnn, TaskModel
from xsam.services.specs.optimizer import Optimizer, XsamVariant
from xsam.services.specs.plane import Plane
from xsam.services.specs.recipe import Parameters, Recipe, Speed
from xsam.services.specs.schedule import ConstantSchedule, Schedule
from xsam.services.specs.script import check_heard
from xsam.services.specs.secrets import MAX_SECRETS, SecretName
from xsam.services.specs.task import Best, Code, Entrypoint, OwnTask, Requirements

MAX_LABELS = 64
LabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=63)]
LabelValue = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=255), PLAIN]
JobName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$", max_length=100)]
Priority = Annotated[int, Field(ge=-100, le=100)]


GpuKind = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=63)]
NodeLabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=253)]
NodeLabelValue = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]*$", max_length=63)]
"""As Ray writes labels of nodes."""


class Resources(Spec):
    """What the job occupies while it runs: all its workers at once, or it waits."""

    num_workers: Annotated[int, Field(ge=1, le=1024)] = 1
    """Ranks of data-parallel training (DDP from two on)."""
    gpus_per_worker: Annotated[float, Field(ge=0, le=16)] = 0
    """Whole GPUs, or a fraction below one to share a GPU."""
    cpus_per_worker: Annotated[int, Field(ge=1, le=256)] = 1
    gpu_kind: GpuKind | None = None
    """Kind that the GPUs must be of, `H100` for one, as `xsam cluster` shows it; by default any."""
    # Left out of what is stored where they are not used: a dispatcher of a release without them reads it then.
    min_gpu_memory_gb: Annotated[float, Field(gt=0, le=100_000)] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    """Memory that each GPU must have, as vendors count it: 80 of an H100 with 80 GB; by default any."""
    node_labels: Annotated[dict[NodeLabelKey, NodeLabelValue], Field(max_length=16)] = Field(
        default_factory=dict, exclude_if=lambda value: not value
    )
    """Labels that each of its nodes must have, `{zone: a}` for one, as `xsam cluster` shows them."""

    @model_validator(mode="after")
    def _gpus_are_whole_or_a_share(self) -> Self:
        if self.gpus_per_worker > 1 and self.gpus_per_worker != int(self.gpus_per_worker):
            raise field_error(
                "resources.gpus_per_worker",
                f"gpus_per_worker is {self.gpus_per_worker}; allowed are whole numbers, or a fraction below 1",
            )
        for name in ("gpu_kind", "min_gpu_memory_gb"):
            value = getattr(self, name)
            if value is not None and not self.gpus_per_worker:
                message = f"{name} is {value!r}, but gpus_per_worker is 0; ask for GPUs as well"
                raise field_error(f"resources.{name}", message)
        return self


class CheckpointPolicy(Spec):
    """When the run is saved so that it can go on after an interruption."""

    every_epochs: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Save after every N epochs; the last epoch is always saved."""
    every_steps: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """Save after every N training steps as well, for long epochs."""
    keep_last: Annotated[int, Field(ge=1, le=100)] = 2
    """Newest checkpoints to keep; the best one is kept besides."""


Budget = Annotated[int, Field(ge=0, le=100)]


class RetryPolicy(Spec):
    """How often a job may start again, by the cause that ended an attempt.

    Preemptions and attempts that found no place are counted but cost nothing. A person's retry starts all budgets anew.
    """

    infrastructure: Budget = 5
    """A lost runner, node or rank, or no sign of progress."""
    out_of_memory: Budget = 0
    """Memory that was too small; the same run usually fails again."""
    diverged: Budget = 0
    """A loss that is not finite or exploded; the run goes on from its newest checkpoint, which may do the same."""
    user: Budget = 0
    """An exception out of the training code."""
    timed_out: Budget = 0
    """Running time that was used up: each retry grants limits.max_run_s once more."""
    first_delay_s: Annotated[float, Field(gt=0, le=86_400)] = 1.0
    """Wait before the first retry; it doubles with each further failure of the same kind."""
    max_delay_s: Annotated[float, Field(gt=0, le=86_400)] = 300.0
    """Longest wait before a retry."""


MaxSeconds = Annotated[float, Field(gt=0, le=31_622_400)]


class Limits(Spec):
    """How long a job may take; a job over a limit ends as failed with the kind `timed_out`."""

    max_run_s: MaxSeconds | None = None
    """Running time, summed over all attempts; the job is asked to save its state first."""
    max_queue_s: MaxSeconds | None = None
    """Waiting time for a start, counted anew each time it is queued; back-off does not count."""


JOB_GROUPS = {
    **dict.fromkeys(("name", "labels", "priority"), "job"),
    **dict.fromkeys(
        ("model", "dataset", "task", "code", "requirements", "entrypoint", "config", "secrets", "plane"), "what"
    ),
    **dict.fromkeys(("optimizer", "schedule", "epochs", "steps_per_epoch", "batch_size", "seed", "best"), "training"),
    **dict.fromkeys(("precision", "recipe", "parameters", "speed"), "steps"),
    **dict.fromkeys(("resources", "checkpoint", "retry", "limits"), "running"),
}
"""Headings of a form, by field."""


class JobSpec(Spec):
    """One training job. Every field has a default: `{}` trains XSAM on the bundled digits."""

    name: JobName | None = None
    """A word for people; it need not be unique."""
    code: Code | None = None
    """The team's own code, uploaded before; in a file `code: .` stands for the folder beside it."""
    requirements: Requirements | None = None
    """Packages for that code, locked before; in a file `requirements: requirements.txt`."""
    task: OwnTask | None = None
    """The team's own model, data, loss and metrics; `model` and `dataset` are left out then."""
    entrypoint: Entrypoint | None = None
    """A script of the job's code instead, with a loop of its own: `train.py`, or `[train.py, --lr, "{config.lr}"]`."""
    config: Options = Field(default_factory=dict)
    """What the script reads as `run.config`."""
    # Left out of what is stored where there are none: a dispatcher of a release without them reads it then.
    secrets: Annotated[tuple[SecretName, ...], Field(max_length=MAX_SECRETS)] = Field(
        default=(), exclude_if=lambda value: not value
    )
    """Secrets of the team, each given to every rank as the environment variable of its name while the job runs."""
    plane: Plane | None = Field(default=None, exclude_if=lambda value: value is None)
    """Instead of training, the loss around the checkpoints of another job, from which model, data and optimizer
    come."""
    model: Model = SmallCnn()
    dataset: Dataset = Digits()
    optimizer: Optimizer = XsamVariant()
    schedule: Schedule = ConstantSchedule()
    best: Best | None = None
    """What makes an epoch the best one, `f1:max` or `loss:min`; by default the task's word, of images
    `accuracy:max`."""
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 10
    steps_per_epoch: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """For data of a `task` that has no length; an epoch is so many steps."""
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """Global batch size: the ranks share it evenly."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16, fp16: autocast in forward passes; parameters and optimizer state stay fp32. fp16 scales the loss, and a
    step in which any pass overflows changes nothing but the scale."""
    recipe: Recipe = Recipe()
    """Accumulation, clipping and averaged weights."""
    parameters: Parameters = Parameters()
    """Freezing, and what is spared decay or perturbation."""
    speed: Speed = Speed()
    """torch.compile, channels-last, TF32."""
    resources: Resources = Resources()
    checkpoint: CheckpointPolicy = CheckpointPolicy()
    retry: RetryPolicy = RetryPolicy()
    limits: Limits = Limits()
    priority: Priority = 0
    """Higher goes first."""
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=MAX_LABELS)] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _a_task_stands_for_model_and_dataset(cls, given: Any) -> Any:
        if isinstance(given, dict) and (given.get("task") is not None or given.get("entrypoint") is not None):
            return {"model": {"name": "task"}, "dataset": {"name": "task"}} | given
        return given

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        _check_task(self)
        _check_batch(self)
        _check_image(self)
        return self

    @property
    def has_own_work(self) -> bool:
        """Whether the team's own code brings model and data."""
        return self.task is not None or self.entrypoint is not None

    @property
    def num_train(self) -> int | None:
        """Training examples per epoch, None where only the files can tell."""
        wanted = self.dataset.train_size
        return self.num_available if wanted is None else wanted

    @property
    def num_available(self) -> int | None:
        """Training examples that are not held out, None where only the files can tell."""
        known = self.dataset.facts().train_size
        return None if known is None else known - (self.dataset.validation_size or 0)


def _check_task(spec: JobSpec) -> None:
    for field, part, kind in (("model", spec.model, TaskModel), ("dataset", spec.dataset, TaskDataset)):
        if isinstance(part, kind) and not spec.has_own_work:
            raise field_error(f"{field}.name", f"{field}.name is 'task', which needs a task: give task.target")
        if not isinstance(part, kind) and spec.has_own_work:
            raise field_error(
                field, f"{field} is {part.name!r}, but the job's own code brings its own; leave {field} out"
            )
    if spec.dataset != TaskDataset() and spec.has_own_work:
        raise field_error("dataset", "dataset says what a task's own data is trained on; leave dataset out")
    if spec.requirements is not None and spec.code is None:
        raise field_error("requirements", "requirements are packages for the job's own code; give `code: .` as well")
    _check_entrypoint(spec)
    if spec.steps_per_epoch is not None and not spec.has_own_work:
        raise field_error("steps_per_epoch", "steps_per_epoch is for jobs with a task; data named here has a length")


def _check_entrypoint(spec: JobSpec) -> None:
    if spec.entrypoint is None:
        if spec.config:
            raise field_error("config", "config is read by a script; give entrypoint, or task.options for a task")
        return
    if spec.task is not None:
        raise field_error("entrypoint", "entrypoint and task are two ways; give one of them")
    if spec.code is None:
        raise field_error("entrypoint", "entrypoint is a file of the job's code; give `code: .` as well")
    try:
        spec.entrypoint.filled(spec.model_dump(mode="json"))
    except KeyError as e:
        raise field_error("entrypoint.args", f"entrypoint.args names {e.args[0]}, which this job has not") from e
    check_heard(spec, spec.entrypoint)


def _check_batch(spec: JobSpec) -> None:
    workers = spec.resources.num_workers
    if spec.batch_size % workers:
        raise field_error(
            "batch_size",
            f"batch_size is {spec.batch_size}, which {workers} workers cannot share evenly; "
            "allowed are multiples of resources.num_workers",
        )
    parts = spec.recipe.micro_batches
    if spec.batch_size % (workers * parts):
        raise field_error(
            "recipe.micro_batches",
            f"recipe.micro_batches is {parts}, which does not divide the {spec.batch_size // workers} examples of each "
            "worker's batch; allowed are its divisors",
        )
    available = spec.num_available
    held_out = spec.dataset.validation_size
    if held_out is not None and available is not None and available < 1:
        known = available + held_out
        raise field_error(
            "dataset.validation_size",
            f"dataset.validation_size is {held_out}, but {spec.dataset.name} has {known} training examples; "
            f"allowed are at most {known - 1}",
        )
    wanted = spec.dataset.train_size
    if available is not None and wanted is not None and wanted > available:
        raise field_error(
            "dataset.train_size",
            f"dataset.train_size is {wanted}, but {spec.dataset.name} has {available} training examples"
            + ("" if held_out is None else f" beside the {held_out} of dataset.validation_size"),
        )
    if spec.num_train is not None and spec.batch_size > spec.num_train:
        raise field_error(
            "batch_size",
            f"batch_size is {spec.batch_size}, larger than the {spec.num_train} training examples of an epoch",
        )


def _check_image(spec: JobSpec) -> None:
    size = spec.dataset.facts().image_size
    if size is not None and size < spec.model.min_image_size:
        raise field_error(
            "model.name",
            f"model {spec.model.name} needs images of at least {spec.model.min_image_size} pixels, "
            f"but {spec.dataset.name} has {size}",
        )
