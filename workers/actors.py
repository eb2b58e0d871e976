"""The Ray actors of this service: light to define, each process loads its code when it starts.

Whoever gets a handle of an actor imports the actor's class first: a rank gets its runner's, the dispatcher all of
them. Were the code behind the actors imported here, each of these processes would load torch, Ray Tune and the
database's tools (seconds of start, hundreds of megabytes) for nothing: hence the late imports.
"""

import importlib
import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ray
from ray.actor import ActorHandle

from xsam.services.process import freeze_imports, hide_memory
from xsam.services.studies.limits import MAX_CONCURRENCY
from xsam.workers.messages import (
    Assignment,
    CheckRequest,
    DeviceFinding,
    RankResult,
    Report,
    RunnerConfig,
    RunnerOutcome,
)

if TYPE_CHECKING:
    from xsam.services.db.session import Database
    from xsam.services.jobs.queue import ClaimedJob
    from xsam.services.jobs.states import Wish
    from xsam.workers.runner.attempt import Attempt


class WarmProcess:
    """An actor that is worth starting in advance: warm when the constructor has returned."""

    def ready(self) -> str:
        """Return the Ray node of this process; also the sign that it is warm."""
        return str(ray.get_runtime_context().get_node_id())


class RankWorker(WarmProcess):
    """Takes one assignment after the other; see `xsam.workers.rank.run`."""

    def __init__(self) -> None:
        # CUDA takes the GPUs that it finds when it is asked for the first time, and keeps them. Asked through NVML it
        # does not begin: this process gets its GPUs with an assignment.
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
        self._code = importlib.import_module("xsam.workers.rank.run")
        self._code.warm_up()

    def rendezvous_address(self) -> str:
        """Return `HOST:PORT` with a port that is free on this node right now."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"

    def run(self, assignment: Assignment, runner: ActorHandle) -> RankResult:
        """Be one rank of a run, in this process."""
        return self._code.run_here(assignment, runner)

    def check_devices(self, num_announced: int) -> DeviceFinding:
        """Return what this node's GPUs are and can do; the process must not be used for anything else then."""
        found: DeviceFinding = importlib.import_module("xsam.workers.rank.device_check").check(num_announced)
        return found

    def run_group(self, assignment: Assignment, runner: ActorHandle) -> RankResult:
        """Drive a worker group that Ray Train places and starts; returns the result that speaks for all ranks."""
        return self._code.run_group(assignment, runner)


class Runner(WarmProcess):
    """Owns running attempts, each from the claim to its last row, and trains nothing itself.

    What it is told to run blocks while ranks call these methods, in other threads. Ranks name the attempt they work
    for: a call that was on its way when its job ended must not touch the next one.
    """

    def __init__(self) -> None:
        hide_memory()
        self._attempts: dict[tuple[str, int], Attempt] = {}

    @ray.method(concurrency_group="reports")
    def record(self, job_id: str, attempt: int, report: Report) -> None:
        """Take a report of rank 0; it is stored within a moment."""
        if found := self._attempts.get((job_id, attempt)):
            found.record(report)

    @ray.method(concurrency_group="quick")
    def wish(self, job_id: str, attempt: int) -> "Wish | None":
        """Return what somebody wants of a running job."""
        found = self._attempts.get((job_id, attempt))
        return None if found is None else found.wish()

    @ray.method(concurrency_group="quick")
    def may_publish(self, job_id: str, attempt: int) -> bool:
        """Return whether a rank may still put a checkpoint in place."""
        found = self._attempts.get((job_id, attempt))
        return found is not None and found.may_publish()


class JobRunner(Runner):
    """Runs one job at a time; see `xsam.workers.runner.attempt`."""

    def __init__(self) -> None:
        super().__init__()
        self._code = importlib.import_module("xsam.workers.runner.attempt")
        self._database: Database | None = None
        freeze_imports()

    def run(
        self, config: RunnerConfig, claimed: "ClaimedJob", ranks: list[ActorHandle], nodes: list[str]
    ) -> RunnerOutcome:
        """Run the job to its end and store how it ended.

        The process ends instead if the job has become somebody else's.

        Args:
            config: the settings; they come with each call, because calls to a threaded actor keep no order.
            claimed: the job and its lease.
            ranks: see `xsam.workers.runner.placement_group`.
            nodes: Ray node of each worker.
        """
        if self._database is None:
            self._database = self._code.Database(config.database_url, pool_size=3, scheduling=config.scheduling)
        key = (claimed.lease.job_id, claimed.lease.attempt)
        attempt = self._code.Attempt(config, self._database, claimed, ray.get_runtime_context().current_actor)
        self._attempts[key] = attempt
        try:
            outcome = attempt.run(ranks, nodes)
        finally:
            del self._attempts[key]
        if outcome is None:
            os._exit(0)  # whoever started this run may be gone: nobody else would end the process
        return outcome


class StudyRunner(Runner):
    """Runs one study in its life; see `xsam.workers.studies.study_run`. Calls that wait have threads of their own."""

    def __init__(self) -> None:
        super().__init__()
        self._study = importlib.import_module("xsam.workers.studies.study_run").StudyRun(self._attempts)
        freeze_imports()

    def run(self, config: RunnerConfig, claimed: "ClaimedJob") -> RunnerOutcome:
        """Run the study until it ends or is paused with nothing running."""
        return self._study.run(config, claimed)

    @ray.method(concurrency_group="places")
    def run_trial(self, claimed: "ClaimedJob", ranks: list[ActorHandle], nodes: list[str]) -> RunnerOutcome:
        """Run trials at a place that the dispatcher has given."""
        return self._study.run_trial(claimed, ranks, nodes)

    @ray.method(concurrency_group="reports")
    def verdict(self, job_id: str, attempt: int, epoch: int) -> bool:
        """Return whether the early stopper ends a trial after this epoch."""
        return self._study.verdict(job_id, attempt, epoch)


def _check_code(request: CheckRequest) -> dict[str, Any]:
    """Try a job's own code; see `xsam.workers.rank.check`. The process ends with it."""
    found: dict[str, Any] = importlib.import_module("xsam.workers.rank.check").run_check(request)
    return found


def _compute(document: Mapping[str, Any]) -> dict[str, Any]:
    """Compute what a run of the lab needs; see `xsam.workers.rank.computation`. The process ends with it."""
    found: dict[str, Any] = importlib.import_module("xsam.workers.rank.computation").compute(document)
    return found


compute = ray.remote(num_cpus=0, max_retries=0, max_calls=1)(_compute)
check_code = ray.remote(num_cpus=0, max_retries=0, max_calls=1)(_check_code)
RankActor = ray.remote(RankWorker)

# `run` is called in the default group. One thread takes the reports, which keeps their order; other groups keep waiting
# calls from keeping a report or a wish waiting.
RunnerActor = ray.remote(concurrency_groups={"reports": 1, "quick": 3})(JobRunner)
StudyRunnerActor = ray.remote(concurrency_groups={"places": MAX_CONCURRENCY, "reports": 1, "quick": 4})(StudyRunner)
