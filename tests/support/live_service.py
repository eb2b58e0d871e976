"""A dispatcher on a real local Ray cluster and a real database, advanced turn by turn inside the test."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import ray
from ray.cluster_utils import Cluster
from sqlalchemy import select

from xsam.services.artifacts.logs import read_lines
from xsam.services.artifacts.store import log_prefix
from xsam.services.cluster.schemas import ClusterRead
from xsam.services.db import migrate
from xsam.services.db.session import Database
from xsam.services.jobs import service, verbs
from xsam.services.jobs.models import Job, JobAttempt, JobEvent
from xsam.services.jobs.states import JobState, is_terminal
from xsam.services.metrics.models import AlphaEstimate, EpochMetric
from xsam.services.reports import cluster, why
from xsam.services.settings import (
    ArtifactSettings,
    DatabaseSettings,
    DispatcherSettings,
    RayCluster,
    SecretSettings,
    Settings,
    TrainingSettings,
)
from xsam.services.specs.job import JobSpec
from xsam.services.teams.roles import Actor
from xsam.workers.dispatch import ray_cluster
from xsam.workers.dispatch.dispatcher import Dispatcher

TURN_S = 0.05
PATIENCE_S = 240.0
"""Only a hang takes so long; nothing waits for it."""


class LiveService:
    """Everything but HTTP, in this process and on a local Ray cluster."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database = Database(settings.database_url)
        migrate.upgrade(self.database)
        self.dispatcher = Dispatcher(settings, self.database)

    def submit(self, team: str = "default", **spec: Any) -> str:
        """Queue a job of a team and return its id."""
        with self.database.unit_of_work() as session:
            job, _ = service.submit(
                session, JobSpec.model_validate(spec), actor=Actor("tester", team), allowed=self.settings.allowed_code
            )
            return job.id

    def cancel(self, job_id: str) -> None:
        """Ask for a job's end."""
        with self.database.unit_of_work() as session:
            verbs.cancel(session, job_id, actor=Actor("tester", "default"))

    def job(self, job_id: str) -> Job:
        """Return the job's row as it is now."""
        with self.database.read() as session:
            return session.get_one(Job, job_id)

    def turn_until(self, condition: Callable[[], bool], dispatcher: Dispatcher | None = None) -> None:
        """Advance the dispatcher (or another one in its place) until the condition holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, "nothing happened for four minutes"
            (dispatcher or self.dispatcher).turn()
            time.sleep(TURN_S)

    def finish(self, job_id: str) -> Job:
        """Advance until the job has ended and return its row."""
        self.turn_until(lambda: self._has_ended(job_id))
        self.turn_until(lambda: not self.dispatcher.has_jobs_in_flight)
        return self.job(job_id)

    def reach_epoch(self, job_id: str, epoch: int) -> None:
        """Advance until the job has finished `epoch` epochs; one that ends before them fails at once."""

        def has_come() -> bool:
            job = self.job(job_id)
            has_come = job.epochs_done >= epoch
            assert has_come or not is_terminal(JobState(job.state)), f"{job.state}: {job.failure_message}"
            return has_come

        self.turn_until(has_come)

    def _has_ended(self, job_id: str) -> bool:
        return is_terminal(JobState(self.job(job_id).state))

    def epochs(self, job_id: str) -> list[EpochMetric]:
        """Return the job's epoch rows in order."""
        query = select(EpochMetric).where(EpochMetric.job_id == job_id).order_by(EpochMetric.epoch)
        with self.database.read() as session:
            return list(session.scalars(query))

    def alphas(self, job_id: str) -> list[AlphaEstimate]:
        """Return the job's alpha estimates in order."""
        query = select(AlphaEstimate).where(AlphaEstimate.job_id == job_id).order_by(AlphaEstimate.step)
        with self.database.read() as session:
            return list(session.scalars(query))

    def attempts(self, job_id: str) -> list[JobAttempt]:
        """Return the job's attempts in order."""
        query = select(JobAttempt).where(JobAttempt.job_id == job_id).order_by(JobAttempt.number)
        with self.database.read() as session:
            return list(session.scalars(query))

    def event_kinds(self, job_id: str) -> list[str]:
        """Return what happened to the job, in order."""
        query = select(JobEvent.kind).where(JobEvent.job_id == job_id).order_by(JobEvent.id)
        with self.database.read() as session:
            return list(session.scalars(query))

    def training_event(self, job_id: str) -> dict[str, Any]:
        """Return the data of the newest `training` event: which processes have the job."""
        query = select(JobEvent.data).where(JobEvent.job_id == job_id, JobEvent.kind == "training")
        with self.database.read() as session:
            return dict(session.scalars(query.order_by(JobEvent.id.desc())).first() or {})

    def why(self, job_id: str) -> str:
        """Return why the job stands where it does, in words."""
        with self.database.read() as session:
            return why.explain(session, job_id).sentence

    def overview(self) -> ClusterRead:
        """Return the cluster as people see it."""
        with self.database.read() as session:
            return cluster.overview(session)

    def log(self, job_id: str, attempt: int = 1) -> str:
        """Return the text of an attempt's log, all ranks."""
        folder = self.settings.store_place.open().local(log_prefix(job_id, attempt))
        return "\n".join(line.text for line in read_lines(folder))

    def ray_and_rows_agree(self) -> bool:
        """Return whether what Ray holds is what the running jobs have, to the last CPU."""
        return self._held_in_ray() == self._used_by_jobs()

    def all_resources_are_free(self) -> bool:
        """Return whether neither Ray nor the rows know of anything that is in use."""
        return self._held_in_ray() == self._used_by_jobs() == (0.0, 0.0)

    def _held_in_ray(self) -> tuple[float, float]:
        total, free = ray.cluster_resources(), ray.available_resources()
        gpus, cpus = (total.get(name, 0.0) - free.get(name, 0.0) for name in ("GPU", "CPU"))
        return round(gpus, 4), round(cpus, 4)

    def _used_by_jobs(self) -> tuple[float, float]:
        found = self.overview()
        return round(found.used_gpus, 4), round(found.used_cpus, 4)


class OtherProgram:
    """A program that is none of the service's, on the same Ray cluster."""

    _CODE = """if True:
        import sys, ray
        from ray.util import placement_group
        address, number, cpus, gpus = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
        ray.init(address=address, namespace="other", log_to_driver=False)
        held = [placement_group([{"CPU": cpus, "GPU": gpus}]) for _ in range(number)]
        print(all(one.wait(30) for one in held), flush=True)
        sys.stdin.read()
    """

    def __init__(self, address: str, *, num_groups: int, cpus: float, gpus: float) -> None:
        words = [address, str(num_groups), str(cpus), str(gpus)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", self._CODE, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert b"True" in self._process.stdout.readline()

    def leave(self) -> None:
        """End it, with all that it holds."""
        self._process.communicate(timeout=60)


class Nodes:
    """A Ray cluster of several nodes on this machine, to take nodes away from."""

    def __init__(self) -> None:
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 0})

    @property
    def address(self) -> str:
        """Where to join."""
        return str(self._cluster.address)

    def add(self, *, labels: Mapping[str, str] | None = None, **resources: int) -> None:
        """Start a node."""
        self._cluster.add_node(labels=labels, **resources)

    def remove(self, node_id: str) -> None:
        """Take a node away at once, with everything that runs on it."""
        (node,) = [node for node in self._cluster.worker_nodes if node.node_id == node_id]
        self._cluster.remove_node(node, allow_graceful=False)

    def shutdown(self) -> None:
        """End all nodes."""
        self._cluster.shutdown()


@contextmanager
def live_service(
    data_dir: Path,
    *,
    num_cpus: int | None = 2,
    warm_processes: int = 2,
    database_url: str | None = None,
    device: Literal["auto", "cpu"] = "auto",
    artifacts: ArtifactSettings | None = None,
    allowed_packages: tuple[str, ...] = (),
    lease_s: float = 10,
    secrets: SecretSettings | None = None,
    **ray_settings: Any,
) -> Iterator[LiveService]:
    """Start Ray and a dispatcher with warm processes; end both afterwards."""
    settings = Settings(
        data_dir=data_dir,
        database=DatabaseSettings(url=database_url),
        ray=RayCluster(num_cpus=num_cpus, **ray_settings),
        artifacts=artifacts or ArtifactSettings(),
        training=TrainingSettings(device=device, allowed_packages=allowed_packages),
        secrets=secrets or SecretSettings(),
        dispatcher=DispatcherSettings(lease_s=lease_s, warm_processes=warm_processes),
    )
    ray_cluster.connect(settings.ray)
    try:
        started = LiveService(settings)
        started.turn_until(started.dispatcher.is_warm)
        yield started
        started.dispatcher.drain()
        started.database.dispose()
    finally:
        ray.shutdown()
