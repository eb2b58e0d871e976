"""What the API shows of the lab: figures, and runs of them."""

from datetime import datetime
from typing import Literal, Self

from xsam.services.lab.finding import Finding, Verdict
from xsam.services.lab.models import LabRun
from xsam.services.lab.spec import LabSpec
from xsam.services.schemas import Read

LabState = Literal["running", "succeeded", "failed", "cancelled"]


class FigureRead(Read):
    """A figure that can be made."""

    name: str
    title: str
    claim: str


class FiguresRead(Read):
    """All figures."""

    items: list[FigureRead]


class StageRead(Read):
    """A part of a run."""

    name: str
    kind: str
    job_id: str | None
    """The job or study; null before it is queued, and of a computation."""
    state: str
    """waiting, or the job's."""


class LabRunRow(Read):
    """A run in a list."""

    id: str
    figure: str
    scale: str
    team: str
    submitted_by: str
    state: LabState
    verdict: Verdict | None
    num_stages: int
    num_done: int
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, run: LabRun) -> Self:
        """Return the document for a row."""
        return cls.model_validate(_columns(run))


class LabRunPage(Read):
    """A page of runs, newest first."""

    items: list[LabRunRow]
    next_cursor: str | None


class LabRunRead(LabRunRow):
    """A run with what it has found."""

    spec: LabSpec
    stages: list[StageRead]
    failure: str | None
    finding: Finding | None

    @classmethod
    def of(cls, run: LabRun) -> Self:
        """Return the document for a row."""
        stages = []
        for stage in run.stages:
            done = run.work.get(stage["name"], {})
            state = done.get("state", "waiting")
            stages.append({"name": stage["name"], "kind": stage["kind"], "job_id": done.get("id"), "state": state})
        more = {"spec": run.spec, "stages": stages, "failure": run.failure, "finding": run.finding}
        return cls.model_validate({**_columns(run), **more})


class StageCost(Read):
    """What a stage would take."""

    name: str
    kind: str
    num_trials: int
    grad_evals: int | None
    """Forward-backward passes; null where only the data's files can tell."""
    probe_forwards: int | None
    gpu_hours: float | None
    """By the pace of comparable runs; null if there was none."""


class LabPreview(Read):
    """What a run would take; nothing was queued."""

    stages: list[StageCost]
    num_trials: int
    grad_evals: int | None
    probe_forwards: int | None
    gpu_hours: float | None
    work_s: float | None
    """Seconds of training, one job after the other."""
    spec: LabSpec


def _columns(run: LabRun) -> dict[str, object]:
    names = ("id", "figure", "scale", "team", "submitted_by", "state", "verdict", "created_at", "finished_at")
    num_done = sum(1 for done in run.work.values() if done.get("state") == "succeeded")
    return {**{name: getattr(run, name) for name in names}, "num_stages": len(run.stages), "num_done": num_done}
