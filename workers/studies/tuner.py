"""Ray Tune at work on a study: the Tuner, its searcher and its scheduler, all three over the study's course.

Tune writes its state to a scratch folder, and Tuner pickles searcher and scheduler there. Both pickle as empty shells:
the rows are what a study is taken up again from, and no password gets into a file.
"""

import logging
import os
import tempfile
from collections.abc import Callable
from typing import Any

from ray import tune
from ray.actor import ActorHandle
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from xsam.services.studies.limits import MAX_CONCURRENCY
from xsam.workers.studies.relay import TRIAL, Relay
from xsam.workers.studies.state import Course

_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # results are rows
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # nothing is restored from Tune's own snapshots
    "TUNE_MAX_PENDING_TRIALS_PG": str(MAX_CONCURRENCY),
    "RAY_AIR_NEW_OUTPUT": "0",
}
_RELAY_RESOURCES = {"memory": 1}
"""A byte: Tune's actors only wait, what a trial uses is held for its ranks. (Tune refuses to ask for nothing.)"""


class CourseSearcher(Searcher):
    """Hands out the course's trials: those that live already, and new ones as long as they are wanted.

    Args:
        course: None in the shell that is left of a pickled one.
        start: makes the rows of a new trial; returns whether there is one.
        is_done: whether the study has ended and Tune should too.
    """

    def __init__(
        self,
        course: Course | None = None,
        start: Callable[[], bool] = lambda: False,
        is_done: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(metric="epoch", mode="max")  # Tune wants one; what is best is the course's business
        self._course = course
        self._start = start
        self._is_done = is_done
        self._given: set[str] = set()
        """Tune's names of the trials that it has not seen the end of."""

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial, None while there is none, or that there will be none any more."""
        if self._course is None or self._is_done():
            return Searcher.FINISHED
        adopted = self._course.adopt(num_given=len(self._given))
        if adopted is None and self._start():
            adopted = self._course.adopt(num_given=len(self._given))
        if adopted is None:
            return None
        self._given.add(trial_id)
        return {TRIAL: adopted.job_id}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Take note that Tune has an actor to spare; the course knows how the trial went from the trial itself."""
        self._given.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Write an empty file, which Tune expects."""
        with open(checkpoint_path, "wb"):
            pass

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def __deepcopy__(self, memo: dict[int, Any]) -> "CourseSearcher":
        return self


class CourseScheduler(FIFOScheduler):
    """Puts each epoch before the course's judges.

    A trial that they end goes on for Tune until it has left its place: Tune keeps an idle actor only if it knows of a
    trial to give it, and a new one takes seconds to start.

    Args:
        course: None in the shell that is left of a pickled one.
    """

    def __init__(self, course: Course | None = None) -> None:
        super().__init__()
        self._course = course

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Judge an epoch."""
        if self._course is not None and not result.get("done"):
            self._course.judge(trial.config[TRIAL], result["epoch"])
        return str(TrialScheduler.CONTINUE)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def __deepcopy__(self, memo: dict[int, Any]) -> "CourseScheduler":
        return self


def run_tuner(course: Course, runner: ActorHandle, start: Callable[[], bool], is_done: Callable[[], bool]) -> None:
    """Run Tune until the study is done; blocks.

    Args:
        course: the study.
        runner: handle of the study's runner, for the relays.
        start: see `CourseSearcher`.
        is_done: see `CourseSearcher`.
    """
    os.environ.update(_ENVIRONMENT)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="xsam-tune-") as folder:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(Relay, runner=runner), _RELAY_RESOURCES),
            tune_config=tune.TuneConfig(
                search_alg=CourseSearcher(course, start, is_done),
                scheduler=CourseScheduler(course),
                num_samples=-1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=course.study_id,
                storage_path=folder,
                verbose=0,
                log_to_file=False,
                failure_config=tune.FailureConfig(max_failures=-1),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        )
        tuner.fit()
