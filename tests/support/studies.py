"""Studies for tests: made through the calls that everybody uses, run by hand as their runner would."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xsam.services.db.session import Database
from xsam.services.jobs import queue
from xsam.services.jobs.cost import cost_of
from xsam.services.jobs.models import Job
from xsam.services.jobs.queue import Lease
from xsam.services.jobs.retry import RetryDecision
from xsam.services.jobs.states import FailureKind
from xsam.services.metrics import service as metrics
from xsam.services.metrics.records import EpochRecord
from xsam.services.studies import service, trials
from xsam.services.studies.arms import arms_of, job_spec
from xsam.services.studies.models import Study
from xsam.services.studies.service import spec_of
from xsam.services.studies.space import Point
from xsam.services.studies.spec import StudySpec, read_space
from xsam.services.studies.trials import NewTrial, Result, TrialState
from xsam.services.teams.roles import Actor

ALICE = Actor(user="alice", team="red")
BOB = Actor(user="bob", team="blue")
SMALL: dict[str, Any] = {
    "base": {"dataset": {"name": "synthetic", "num_train": 64, "num_eval": 32}, "batch_size": 32, "epochs": 4},
    "space": {"optimizer.rho": {"type": "log_uniform", "low": 0.01, "high": 0.5}},
    "num_trials": 6,
}
LEASE_S = 60.0


def submit(database: Database, *, actor: Actor = ALICE, **fields: Any) -> str:
    """Queue a small study with these fields and return its id."""
    with database.unit_of_work() as session:
        job, _ = service.submit(session, StudySpec.model_validate({**SMALL, **fields}), actor=actor)
        return job.id


def read(database: Database, study_id: str) -> tuple[Job, Study]:
    """Return the study's rows as they are now."""
    with database.read() as session:
        return service.get(session, study_id)


def load(database: Database, study_id: str) -> list[TrialState]:
    """Return the study's trials as they are now."""
    with database.read() as session:
        return trials.load(session, study_id)


@dataclass(frozen=True, slots=True)
class HandRunner:
    """Holds a study's lease and does with its trials what it is told to."""

    database: Database
    lease: Lease

    @classmethod
    def start(cls, database: Database, study_id: str) -> "HandRunner":
        with database.unit_of_work() as session:
            claimed = queue.claim(session, study_id, runner="runner-1", lease_s=LEASE_S)
            assert claimed is not None
            service.get(session, study_id)[1].runner_name = "study-1"
        return cls(database, claimed.lease)

    @property
    def study_id(self) -> str:
        return self.lease.job_id

    def propose(self, point: Point, *, arm: int = 0, phase: str = trials.SEARCH, config: int = 0, seed: int = 0) -> str:
        """Queue a trial."""
        with self.database.unit_of_work() as session:
            job, study = service.get(session, self.study_id)
            spec = spec_of(job)
            chosen = arms_of(spec, space=read_space(study.space), num_configs=study.num_configs)[arm]
            planned = job_spec(spec, chosen, point, seed)
            new = NewTrial(chosen.name, phase, config, seed, point, planned, cost_of(planned).grad_evals)
            return trials.enqueue(session, self.lease, new)

    def claim(self, trial_id: str, *, nodes: Sequence[str] = ("node-1",)) -> Lease:
        with self.database.unit_of_work() as session:
            claimed = queue.claim(session, trial_id, runner="dispatcher-1", lease_s=LEASE_S, placement=nodes)
        assert claimed is not None
        return claimed.lease

    def finish(
        self, lease: Lease, value: float, *, epochs: int = 4, grad_evals: int = 16, train_s: float = 2.0
    ) -> None:
        """Let a running trial measure its epochs and end well."""
        self.measure(lease, [value] * epochs, grad_evals=grad_evals)
        summary = _summary(value, epochs, grad_evals, train_s)
        with self.database.unit_of_work() as session:
            trials.finish(session, lease, Result(summary, value, is_stopped_early=False))

    def measure(self, lease: Lease, accuracies: Sequence[float], *, grad_evals: int = 16) -> None:
        """Let a running trial report epochs."""
        records = [
            EpochRecord(
                epoch=epoch,
                step=2 * epoch,
                train_loss=1.0,
                train_accuracy=accuracy,
                eval_loss=1.0 - accuracy,
                eval_accuracy=accuracy,
                lr=0.1,
                epoch_s=0.5,
                samples_per_s=100.0,
                grad_evals=grad_evals * epoch // len(accuracies),
                probe_forwards=21 * epoch,
            )
            for epoch, accuracy in enumerate(accuracies, start=1)
        ]
        with self.database.unit_of_work() as session:
            metrics.write_epochs(session, lease, records)

    def fail(self, lease: Lease, kind: FailureKind = FailureKind.USER, message: str = "boom") -> None:
        """Let a running trial fail for good."""
        with self.database.unit_of_work() as session:
            decision = RetryDecision(False, 0.0, str(kind))
            queue.fail(session, lease, kind=kind, message=message, decision=decision)
            trials.keep_cost(session, lease.job_id)

    def run(self, point: Point, value: float, **where: Any) -> str:
        """Queue a trial and let it end well at once."""
        trial_id = self.propose(point, **where)
        self.finish(self.claim(trial_id), value)
        return trial_id

    def end(self) -> None:
        """End the study as succeeded."""
        with self.database.unit_of_work() as session:
            queue.complete(session, self.lease, summary={})


def _summary(value: float, epochs: int, grad_evals: int, train_s: float) -> dict[str, Any]:
    return {
        "epochs": epochs,
        "step": 2 * epochs,
        "best_epoch": epochs,
        "best_accuracy": value,
        "final_accuracy": value,
        "final_eval_loss": 1.0 - value,
        "train_s": train_s,
        "grad_evals": grad_evals,
        "probe_forwards": 21 * epochs,
        "mean_alpha": 1.2,
    }
