"""The Ray actors of this service: light to define, each process loads its code when it starts.

Whoever gets a handle of an actor imports the actor's class first: a rank gets its runner's, the dispatcher all of
them. Were the code behind the actors imported here, each of these processes would load torch, Ray Tune and the
database's tools (seconds of start, hundreds of megabytes) for nothing: hence the late imports.
"""

import importlib
import socket
from typing import TYPE_CHECKING

import ray
from ray.actor import ActorHandle

from xsam.services.studies.limits import MAX_CONCURRENCY
from xsam.workers.messages import Assignment, RankResult, Report, RunnerConfig

if TYPE_CHECKING:
    from xsam.services.jobs.queue import ClaimedJob
    from xsam.workers.runner.attempt import RunnerOutcome


class RankWorker:
    """Takes one assignment after the other; see `xsam.workers.rank.run`. Warm when the constructor has returned."""

    def __init__(self) -> None:
        self._code = importlib.import_module("xsam.workers.rank.run")
        self._code.warm_up()

    def ready(self) -> str:
        """Return the Ray node of this process; also the sign that it is warm."""
        return _node()

    def rendezvous_address(self) -> str:
        """Return `HOST:PORT` with a port that is free on this node right now."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"

    def run(self, assignment: Assignment, runner: ActorHandle) -> RankResult:
        """Be one rank of a run, in this process."""
        return self._code.run_here(assignment, runner)

    def run_group(self, assignment: Assignment, runner: ActorHandle) -> RankResult:
        """Drive a worker group that Ray Train places and starts; returns the result that speaks for all ranks."""
        return self._code.run_group(assignment, runner)


class JobRunner:
    """Runs one job at a time; see `xsam.workers.runner.runner`. `run` blocks while ranks call the other methods."""

    def __init__(self) -> None:
        self._runner = importlib.import_module("xsam.workers.runner.runner").Runner()

    def ready(self) -> str:
        """Return the Ray node of this process; also the sign that it is warm."""
        return _node()

    def run(
        self, config: RunnerConfig, claimed: "ClaimedJob", ranks: list[ActorHandle], nodes: list[str]
    ) -> "RunnerOutcome":
        """Run the job to its end."""
        return self._runner.run(config, claimed, ranks, nodes)

    def record(self, job_id: str, attempt: int, report: Report) -> None:
        """Take a report of rank 0."""
        self._runner.record(job_id, attempt, report)

    def wish(self, job_id: str, attempt: int) -> str | None:
        """Return what somebody wants of the running job."""
        return self._runner.wish(job_id, attempt)

    def may_publish(self, job_id: str, attempt: int) -> bool:
        """Return whether a rank may still put a checkpoint in place."""
        return self._runner.may_publish(job_id, attempt)


class StudyRunner:
    """Runs one study in its life; see `xsam.workers.studies.study_run`. Calls that wait have threads of their own."""

    def __init__(self) -> None:
        self._runner = importlib.import_module("xsam.workers.studies.study_run").Runner()

    def ready(self) -> str:
        """Return the Ray node of this process; also the sign that it is warm."""
        return _node()

    def run(self, config: RunnerConfig, claimed: "ClaimedJob") -> "RunnerOutcome":
        """Run the study until it ends or is paused with nothing running."""
        return self._runner.run(config, claimed)

    @ray.method(concurrency_group="places")
    def run_trial(self, claimed: "ClaimedJob", ranks: list[ActorHandle], nodes: list[str]) -> "RunnerOutcome":
        """Run trials at a place that the dispatcher has given."""
        return self._runner.run_trial(claimed, ranks, nodes)

    @ray.method(concurrency_group="reports")
    def record(self, job_id: str, attempt: int, report: Report) -> None:
        """Take a report of rank 0 of a trial."""
        self._runner.record(job_id, attempt, report)

    @ray.method(concurrency_group="quick")
    def wish(self, job_id: str, attempt: int) -> str | None:
        """Return what somebody wants of a running trial."""
        return self._runner.wish(job_id, attempt)

    @ray.method(concurrency_group="quick")
    def may_publish(self, job_id: str, attempt: int) -> bool:
        """Return whether a rank may still put a checkpoint in place."""
        return self._runner.may_publish(job_id, attempt)

    @ray.method(concurrency_group="reports")
    def verdict(self, job_id: str, attempt: int, epoch: int) -> bool:
        """Return whether the early stopper ends a trial after this epoch."""
        return self._runner.verdict(job_id, attempt, epoch)


def _node() -> str:
    return str(ray.get_runtime_context().get_node_id())


RankActor = ray.remote(RankWorker)

RunnerActor = ray.remote(max_concurrency=4)(JobRunner)

StudyRunnerActor = ray.remote(
    # Waiting calls never keep a report or a wish waiting. One thread takes the reports, which keeps their order.
    concurrency_groups={
        "places": MAX_CONCURRENCY,
        "reports": 1,
        "quick": 4,
    },
)(StudyRunner)
"""`run` is called in the default group."""
