"""The course of a study: what is known of its trials, and which one comes next. Knows rows and samplers, no Ray."""

import threading
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from xsam.services.jobs.models import Job
from xsam.services.jobs.states import JobState
from xsam.services.metrics import service as metrics
from xsam.services.metrics.models import EpochMetric
from xsam.services.metrics.records import EpochRecord
from xsam.services.studies import trials
from xsam.services.studies.models import Study
from xsam.services.studies.service import spec_of
from xsam.services.studies.trials import SEARCH, NewTrial, TrialState
from xsam.workers.studies.desk import Desk
from xsam.workers.studies.early_stopping import Measured, make_judges, values_of
from xsam.workers.studies.next_trial import Agenda

_EPOCH_FIELDS = tuple(EpochRecord.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Orders:
    """What the study has been told, as its rows say it now."""

    hold: str | None
    concurrency: int
    revision: int

    @classmethod
    def of(cls, study: Study) -> "Orders":
        """Return a row's orders."""
        return cls(study.hold, study.concurrency, study.revision)


class Course:
    """A study's trials and their order. Thread-safe; built from rows, in a session that reads.

    Args:
        session: open for reading.
        job: the study's job row.
        study: the study's own row.
    """

    def __init__(self, session: Session, job: Job, study: Study) -> None:
        self.study_id = job.id
        self.spec = spec_of(job)
        self.orders = Orders.of(study)
        self.desk = Desk(is_judged=self.spec.early_stopping.name != "none")
        self._lock = threading.RLock()
        self._trials = {trial.job_id: trial for trial in trials.load(session, job.id)}
        self._adopted: set[str] = set()
        self._held: NewTrial | None = None
        self.is_time_spent = False
        """Set from outside: the budget of GPU-hours or of wall time is used up."""
        measured = self._measured(session)
        for trial in self._live():
            self.desk.open(trial.job_id, measured.get(trial.job_id, ()))
        self._plan(study)
        past: dict[str, list[Measured]] = {}
        for trial in self._trials.values():
            if trial.phase == SEARCH and measured.get(trial.job_id):
                one = Measured(trial.job_id, measured[trial.job_id], trial.is_over)
                past.setdefault(trial.arm, []).append(one)
        self._judges = make_judges(self.spec, self._agenda.arm_names, past)

    # What comes next.

    def propose(self) -> NewTrial | None:
        """Return the next trial, counted as live from now on; None while none may start or none is left.

        Raises:
            SpaceError: the space holds no valid job.
        """
        with self._lock:
            if self.orders.hold is not None or self.num_live >= self.orders.concurrency or self.has_failed:
                return None
            new = self._held or self._agenda.next()
            self._held = None
            if new is None or new.job_id in self._trials:
                return None
            if not self._is_affordable(new):
                self._held = new  # trials that end early leave room for it
                return None
            self._add(new)
            return new

    def withdraw(self, new: NewTrial) -> None:
        """Take back a proposed trial whose rows could not be made; it is the next one to be proposed."""
        with self._lock:
            self._trials.pop(new.job_id, None)
            self._held = new

    def adopt(self, *, num_given: int) -> TrialState | None:
        """Return a live trial that Tune has not been given yet.

        Args:
            num_given: trials of which Tune has not seen the end. As long as one of them has ended here already there is
                no hurry: its actor will be free in a moment, and a new one takes seconds to start.
        """
        with self._lock:
            live = self._live()
            if num_given >= len(live):
                return None
            for trial in live:
                if trial.job_id not in self._adopted:
                    self._adopted.add(trial.job_id)
                    self.desk.expect_relay(trial.job_id)
                    return trial
            return None

    # What is known.

    @property
    def num_live(self) -> int:
        """Trials that wait or run."""
        with self._lock:
            return len(self._live())

    @property
    def live_ids(self) -> list[str]:
        """Ids of the trials that wait or run."""
        with self._lock:
            return [trial.job_id for trial in self._live()]

    @property
    def trials(self) -> list[TrialState]:
        """All trials."""
        with self._lock:
            return list(self._trials.values())

    @property
    def failures(self) -> list[TrialState]:
        """Failed trials that count against the limit."""
        with self._lock:
            return [trial for trial in self._trials.values() if trial.is_failure]

    @property
    def has_failed(self) -> bool:
        """Whether too many trials have failed."""
        return len(self.failures) >= self.spec.max_failures

    @property
    def is_over(self) -> bool:
        """Whether nothing runs and nothing will start any more."""
        with self._lock:
            if self._live():
                return False
            if self.orders.hold == trials.STOP or self.has_failed:
                return True
            return self.orders.hold is None and (self.is_budget_spent or not (self._held or self._agenda.has_next()))

    @property
    def is_budget_spent(self) -> bool:
        """Whether the budget has no room for the next trial."""
        with self._lock:
            return self.is_time_spent or (self._held is not None and not self._is_affordable(self._held))

    def knows(self, trial_id: str) -> bool:
        """Return whether a trial is one of this study's."""
        with self._lock:
            return trial_id in self._trials

    def is_judged(self, trial_id: str) -> bool:
        """Return whether a trial may be stopped early; confirmation runs to the end."""
        with self._lock:
            return self.desk.is_judged and self._trials[trial_id].phase == SEARCH

    def value_of(self, trial_id: str) -> float | None:
        """Return a trial's objective, from the epochs it has reported."""
        epochs = self.desk.epochs(trial_id)
        return trials.objective_of(self.spec.objective, values_of(self.spec.objective, epochs))

    # What happens.

    def judge(self, trial_id: str, epoch: int) -> bool:
        """Decide whether a trial ends after an epoch, and tell whoever waits for it."""
        with self._lock:
            trial = self._trials[trial_id]
            judge = self._judges.get(trial.arm) if trial.phase == SEARCH else None
            epochs = self.desk.epochs(trial_id)[:epoch]
            is_stopped = judge is not None and bool(epochs) and judge.is_stopped(trial_id, epochs)
            is_stopped = is_stopped and epoch < trial.num_epochs  # the last epoch ends a trial anyway
        self.desk.judge(trial_id, epoch, is_stopped=is_stopped)
        return is_stopped

    def note_success(self, trial_id: str) -> None:
        """Count a trial as ended well, before its rows say so."""
        with self._lock:
            epochs = self.desk.epochs(trial_id)
            self._update(
                replace(
                    self._trials[trial_id],
                    state=JobState.SUCCEEDED,
                    value=self.value_of(trial_id),
                    grad_evals=epochs[-1].grad_evals if epochs else 0,
                    is_stopped_early=self.desk.is_stopped(trial_id),
                )
            )

    def sync(self, session: Session, study: Study) -> None:
        """Take over what rows say that others may have changed: trials' states, new trials, orders."""
        with self._lock:
            last = max((trial.number for trial in self._trials.values()), default=0)
            unfinished = [trial.job_id for trial in self._trials.values() if trial.state is not JobState.SUCCEEDED]
        found = trials.load(session, self.study_id, after=last, also=unfinished)
        with self._lock:
            for trial in found:
                if trial.job_id not in self._trials:
                    self.desk.open(trial.job_id)
                self._update(trial)
            revision = self.orders.revision
            self.orders = Orders.of(study)
            if study.revision != revision:
                self._plan(study)

    # Inside.

    def _live(self) -> list[TrialState]:
        return [trial for trial in self._trials.values() if not trial.is_over]

    def _plan(self, study: Study) -> None:
        """Plan anew for the space and size in force, knowing all there is."""
        self._agenda = Agenda(self.spec, study, self._trials)
        self._held = None

    def _is_affordable(self, new: NewTrial) -> bool:
        """Return whether the budget has room for a trial: what has been used, what runs, and the trial itself."""
        limit = self.spec.budget.grad_evals
        used = sum((t.grad_evals if t.is_over else t.planned_grad_evals) or 0 for t in self._trials.values())
        is_over_limit = limit is not None and used + (new.planned_grad_evals or 1) > limit
        return not is_over_limit and not self.is_time_spent

    def _add(self, new: NewTrial) -> None:
        self._trials[new.job_id] = TrialState(
            job_id=new.job_id,
            number=0,
            arm=new.arm,
            phase=new.phase,
            config=new.config,
            seed=new.seed,
            point=new.point,
            state=JobState.QUEUED,
            planned_grad_evals=new.planned_grad_evals,
            value=None,
            grad_evals=None,
            is_stopped_early=False,
            failure_kind=None,
            failure_message=None,
            num_epochs=new.job.epochs,
        )
        self.desk.open(new.job_id)

    def _update(self, trial: TrialState) -> None:
        known = self._trials.get(trial.job_id)
        if known is not None and known.state is JobState.SUCCEEDED:
            # A success that was counted before its rows were written; they tell its number.
            self._trials[trial.job_id] = replace(known, number=trial.number)
            return
        if known is not None and known.is_over and not trial.is_over:  # somebody has it tried again
            self._adopted.discard(trial.job_id)
            self.desk.reopen(trial.job_id)
        self._trials[trial.job_id] = trial
        if trial.is_over:
            self.desk.finish(trial.job_id)
            self._agenda.note_end(trial)

    def _measured(self, session: Session) -> dict[str, list[EpochRecord]]:
        """Return the stored epochs: of running trials, and of all where an early stopper has to know them."""
        wanted = self._trials.values() if self.desk.is_judged else self._live()
        return {trial.job_id: [_record(row) for row in metrics.list_epochs(session, trial.job_id)] for trial in wanted}


def _record(row: EpochMetric) -> EpochRecord:
    return EpochRecord(**{name: getattr(row, name) for name in _EPOCH_FIELDS})
