"""The state of a study: what is known of its trials, which one comes next, and which one ends early. Knows no Ray.

Locking rule: `StudyState._lock` guards everything in here, early stoppers included, but for the samplers. Who holds it
computes for moments and never waits: not for Ray, not for SQL (`sync` reads its rows before it takes the lock), not for
another thread. Samplers may compute for seconds, while verdicts and reports must not wait: only the one thread that
draws the next trial uses them, and it holds `StudyState._drawing`, which is taken before the other lock and never
after it. No caller comes in with a lock of its own, so no two locks are ever taken in two orders; nobody waits in here
for a condition, so no wake-up can be lost.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from xsam.services.jobs.models import Job
from xsam.services.jobs.states import JobState
from xsam.services.metrics import service as metrics
from xsam.services.metrics.records import EpochRecord
from xsam.services.metrics.schemas import EpochRead
from xsam.services.studies import trials
from xsam.services.studies.models import Study
from xsam.services.studies.service import spec_of
from xsam.services.studies.trials import SEARCH, NewTrial, TrialState
from xsam.workers.studies.early_stopping import Measured, WatchedTrial, make_early_stoppers, values_of
from xsam.workers.studies.next_trial import SpaceError, TrialGenerator

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


class StudyState:
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
        self._lock = threading.RLock()
        self._drawing = threading.Lock()
        self._trials = {trial.job_id: trial for trial in trials.load(session, job.id)}
        self._watched: dict[str, WatchedTrial] = {}
        self._held: list[NewTrial] = []
        """Proposals that wait: for the budget, or because their rows could not be made."""
        self.space_error: SpaceError | None = None
        """Why nothing can be proposed any more."""
        self.is_time_spent = False
        """Set from outside: the budget of GPU-hours or of wall time is used up."""
        measured = self._measured(session)
        for trial_id in self._unfinished():
            self._watch(trial_id, measured.get(trial_id, ()))
        self._plan(study)
        past: dict[str, list[Measured]] = {}
        for trial in self._trials.values():
            if trial.phase == SEARCH and measured.get(trial.job_id):
                one = Measured(trial.job_id, measured[trial.job_id], trial.is_over)
                past.setdefault(trial.arm, []).append(one)
        self._stoppers = make_early_stoppers(self.spec, self._generator.arm_names, past)

    # What comes next.

    def propose(self) -> NewTrial | None:
        """Return the next trial, counted as live from now on; None while none may start or none is left.

        A space without valid jobs is told by `space_error`.
        """
        with self._drawing:
            with self._lock:
                if not self._may_start():
                    return None
                if self._held:
                    return self._admitted(self._held.pop(0))
                generator, known = self._generator, dict(self._trials)
            new = self._drawn(generator, known)
            with self._lock:
                if new is None or generator is not self._generator:
                    return None  # in a plan that has replaced the generator's it would have no place
                return self._admitted(new)

    def withdraw(self, new: NewTrial) -> None:
        """Take back a proposed trial whose rows could not be made; it is the next one to be proposed."""
        with self._lock:
            self._trials.pop(new.job_id, None)
            self._held.insert(0, new)

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
            return self.orders.hold is None and (self.is_budget_spent or not self._has_next())

    @property
    def is_budget_spent(self) -> bool:
        """Whether the budget has no room for the next trial."""
        with self._lock:
            return self.is_time_spent or bool(self._held and not self._is_affordable(self._held[0]))

    def knows(self, trial_id: str) -> bool:
        """Return whether a trial is one of this study's."""
        with self._lock:
            return trial_id in self._trials

    def is_judged(self, trial_id: str) -> bool:
        """Return whether a trial may be stopped early; confirmation runs to the end."""
        with self._lock:
            return self.spec.early_stopping.name != "none" and self._trials[trial_id].phase == SEARCH

    def is_stopped(self, trial_id: str) -> bool:
        """Return whether a verdict has ended the trial."""
        with self._lock:
            watched = self._watched.get(trial_id)
            return watched is not None and watched.is_stopped

    def value_of(self, trial_id: str) -> float | None:
        """Return a trial's objective, from the epochs it has reported."""
        with self._lock:
            values = values_of(self.spec.objective, self._epochs(trial_id))
        return trials.objective_of(self.spec.objective, values)

    # What happens.

    def report(self, trial_id: str, record: EpochRecord) -> None:
        """Take an epoch; one that a resumed attempt repeats replaces nothing, since its values are equal."""
        with self._lock:
            if trial_id in self._watched:
                self._watched[trial_id].add(record)

    def judge(self, trial_id: str, epoch: int) -> bool:
        """Return whether a trial ends after an epoch that it has reported.

        Each epoch is put before the early stopper once: asked again, by a rank that was lost with the answer or by a
        resumed attempt, the answer is the old one, and a stop holds for whatever comes after it.
        """
        with self._lock:
            trial = self._trials.get(trial_id)
            if trial is None or trial_id not in self._watched:
                return False
            stopper = self._stoppers.get(trial.arm) if trial.phase == SEARCH else None
            return self._watched[trial_id].judge(epoch, stopper, num_epochs=trial.num_epochs)

    def note_success(self, trial_id: str) -> None:
        """Count a trial as ended well, before its rows say so."""
        with self._lock:
            epochs = self._epochs(trial_id)
            self._update(
                replace(
                    self._trials[trial_id],
                    state=JobState.SUCCEEDED,
                    value=self.value_of(trial_id),
                    grad_evals=epochs[-1].grad_evals if epochs else 0,
                    is_stopped_early=self.is_stopped(trial_id),
                )
            )

    def sync(self, session: Session, study: Study) -> None:
        """Take over what rows say that others may have changed: trials' states, new trials, orders."""
        with self._lock:
            last = max((trial.number for trial in self._trials.values()), default=0)
            unfinished = self._unfinished()
        found = trials.load(session, self.study_id, after=last, also=unfinished)
        with self._lock:
            for trial in found:
                self._watch(trial.job_id)
                self._update(trial)
            revision = self.orders.revision
            self.orders = Orders.of(study)
            if study.revision != revision:
                self._plan(study)

    # Inside.

    def _may_start(self) -> bool:
        if self.orders.hold is not None or self.has_failed or self.space_error is not None:
            return False
        return self.num_live < self.orders.concurrency

    def _admitted(self, new: NewTrial) -> NewTrial | None:
        """Count a trial as live, or hold it back for later: trials that end early leave room for it."""
        if new.job_id in self._trials:
            return None
        if not (self._may_start() and self._is_affordable(new)):
            self._held.insert(0, new)
            return None
        self._add(new)
        return new

    def _has_next(self) -> bool:
        return bool(self._held) or self._generator.has_next(self._trials)

    def _drawn(self, generator: TrialGenerator, known: Mapping[str, TrialState]) -> NewTrial | None:
        try:
            return generator.next(known)
        except SpaceError as e:
            with self._lock:
                self.space_error = e
            return None

    def _watch(self, trial_id: str, epochs: Sequence[EpochRecord] = ()) -> None:
        self._watched.setdefault(trial_id, WatchedTrial(trial_id, list(epochs), len(epochs)))

    def _epochs(self, trial_id: str) -> Sequence[EpochRecord]:
        watched = self._watched.get(trial_id)
        return () if watched is None else watched.epochs

    def _live(self) -> list[TrialState]:
        return [trial for trial in self._trials.values() if not trial.is_over]

    def _unfinished(self) -> list[str]:
        """Return the trials whose rows may change: those that wait or run, and failed ones that may be tried again."""
        return [trial.job_id for trial in self._trials.values() if trial.state is not JobState.SUCCEEDED]

    def _plan(self, study: Study) -> None:
        """Plan anew for the space and size in force, knowing all there is."""
        self._generator = TrialGenerator(self.spec, study, self._trials)
        self._held = []

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
        self._watch(new.job_id)

    def _update(self, trial: TrialState) -> None:
        known = self._trials.get(trial.job_id)
        if known is not None and known.state is JobState.SUCCEEDED:
            # A success that was counted before its rows were written; they tell its number.
            self._trials[trial.job_id] = replace(known, number=trial.number)
            return
        self._trials[trial.job_id] = trial
        if trial.is_over:
            self._generator.note_end(trial, self._trials)

    def _measured(self, session: Session) -> dict[str, list[EpochRecord]]:
        """Return the stored epochs: of unfinished trials, and of all where an early stopper has to know them."""
        wanted = list(self._trials) if self.spec.early_stopping.name != "none" else self._unfinished()
        return {trial_id: [_record(row) for row in metrics.list_epochs(session, trial_id)] for trial_id in wanted}


def _record(row: EpochRead) -> EpochRecord:
    return EpochRecord(**{name: getattr(row, name) for name in _EPOCH_FIELDS})
