"""Studies on a live service: submitted, told things, looked at, and harmed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from tests.support.live_service import LiveService
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import JobState, is_terminal
from xsam.services.studies import service, trials
from xsam.services.studies.models import Study
from xsam.services.studies.spec import StudySpec
from xsam.services.studies.trials import TrialState
from xsam.services.teams.roles import Actor

TESTER = Actor("tester", "default")
TINY: dict[str, Any] = {
    "base": {
        "model": {"name": "mlp", "hidden": [16]},
        "dataset": {"name": "synthetic", "num_train": 256, "num_eval": 64},
        "batch_size": 32,
        "epochs": 3,
    },
    "space": {"optimizer.rho": {"type": "log_uniform", "low": 0.01, "high": 0.2}},
    "sampler": {"name": "random"},
    "num_trials": 6,
    "concurrency": 2,
}
SLOW = {**TINY["base"], "epochs": 300, "dataset": {"name": "synthetic", "num_train": 4096, "num_eval": 64}}
"""A trial of this runs far longer than any test waits."""
LONG = {**SLOW, "epochs": 16}
"""A trial of this can be caught while it runs, also on a machine that pauses for seconds, and ends."""


class LiveStudies:
    """A live service's studies."""

    def __init__(self, live: LiveService) -> None:
        self.live = live

    def submit(self, **fields: Any) -> str:
        """Queue a tiny study with these fields and return its id."""
        with self.live.database.unit_of_work() as session:
            job, _ = service.submit(session, StudySpec.model_validate({**TINY, **fields}), actor=TESTER)
            return job.id

    def tell(self, verb: Callable[..., Any], study_id: str, *args: Any, **fields: Any) -> None:
        """Call a verb."""
        with self.live.database.unit_of_work() as session:
            verb(session, study_id, *args, actor=TESTER, **fields)

    def rows(self, study_id: str) -> tuple[Job, Study]:
        """Return the study's rows."""
        with self.live.database.read() as session:
            return service.get(session, study_id)

    def trials(self, study_id: str) -> list[TrialState]:
        """Return the study's trials."""
        with self.live.database.read() as session:
            return trials.load(session, study_id)

    def in_state(self, study_id: str, state: JobState) -> list[TrialState]:
        """Return the study's trials in a state."""
        return [trial for trial in self.trials(study_id) if trial.state is state]

    def finish(self, study_id: str) -> Job:
        """Advance until the study has ended and everything it used is back; return its row."""
        self.live.turn_until(lambda: self._has_ended(study_id))
        self.live.turn_until(lambda: not self.live.dispatcher.has_jobs_in_flight)
        return self.rows(study_id)[0]

    def reach(self, study_id: str, num: int, state: JobState = JobState.SUCCEEDED) -> None:
        """Advance until so many trials are in a state; a study that ends before fails at once."""
        self._turn_until(study_id, lambda: len(self.in_state(study_id, state)) >= num)

    def reach_epoch(self, study_id: str, epoch: int, *, num: int = 1) -> list[TrialState]:
        """Advance until so many running trials have finished an epoch, and return them."""

        caught: list[TrialState] = []

        def has_caught() -> bool:
            caught[:] = self._running_past(study_id, epoch)
            return len(caught) >= num

        self._turn_until(study_id, has_caught)
        return caught

    @contextmanager
    def held_at_epoch(self, study_id: str, epoch: int) -> Iterator[list[TrialState]]:
        """Give the running trials that have finished an epoch; nobody writes in the block, so they run on."""
        caught: list[TrialState] = []
        while not caught:
            self.reach_epoch(study_id, epoch)
            with self.live.database.unit_of_work():
                caught = self._running_past(study_id, epoch)
                if caught:
                    yield caught

    def _running_past(self, study_id: str, epoch: int) -> list[TrialState]:
        running = self.in_state(study_id, JobState.RUNNING)
        return [trial for trial in running if self.live.job(trial.job_id).epochs_done >= epoch]

    def _turn_until(self, study_id: str, condition: Callable[[], bool]) -> None:
        def holds() -> bool:
            had_ended = self._has_ended(study_id)
            if condition():
                return True
            assert not had_ended, f"the study has ended before: {self.rows(study_id)[0].failure_message}"
            return False

        self.live.turn_until(holds)

    def _has_ended(self, study_id: str) -> bool:
        return is_terminal(JobState(self.rows(study_id)[0].state))

    def runner(self, study_id: str) -> ActorHandle:
        """Return the actor that runs the study."""
        name = self.rows(study_id)[1].runner_name
        assert name is not None
        return ray.get_actor(name)

    def kill_runner(self, study_id: str) -> None:
        """Kill the actor that runs the study and return once it is dead."""
        runner = self.runner(study_id)
        ray.kill(runner)
        with suppress(RayActorError):
            while True:
                ray.get(runner.__ray_ready__.remote())
