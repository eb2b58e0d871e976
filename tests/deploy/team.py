"""A team that works with the containers: trains, searches with its own code through TLS, and lives through crashes."""

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest import mock

import httpx
import yaml

from tests.deploy.engine import ROOT, EngineError, Stack
from xsam.api.client import Client
from xsam.api.client.errors import ClientError
from xsam.services.cluster.schemas import NodeRead
from xsam.services.jobs.states import JobState, is_terminal
from xsam.services.metrics.schemas import EpochRead
from xsam.services.teams.roles import Role

PATIENCE_S = 600.0
"""Only a hang takes so long."""
NUM_NODES = 2
EXAMPLE = ROOT / "deploy/examples/prices"
ATTACK = ROOT / "tests/e2e/attack"
JOBS = "/data/artifacts/jobs"
FIRST: dict[str, Any] = {"name": "first", "epochs": 3}
LONG: dict[str, Any] = {
    "epochs": 20,
    "dataset": {"name": "synthetic", "num_train": 8192, "num_eval": 64},
    "retry": {"first_delay_s": 0.1, "max_delay_s": 1.0},
}
"""Runs long enough for a crash in its middle."""
_CAUGHT_AT = 3
"""Epochs that it has done when something is killed."""
_TOKEN = re.compile(r"First admin token, shown this once:\s*(\S+)")
_AUTHORITY = "/data/caddy/pki/authorities/local/root.crt"


class Team:
    """One member of a team, and the admin who founded it.

    Args:
        stack: the containers.
        url: of the API itself.
        admin: of the service; the only one who may cordon nodes.
        member: works through TLS.
        browser: likewise, signed in nowhere yet.
        token: the member's.
    """

    def __init__(
        self, stack: Stack, *, url: str, admin: Client, member: Client, browser: httpx.Client, token: str
    ) -> None:
        self._stack = stack
        self._url = url
        self._admin = admin
        self._member = member
        self._browser = browser
        self._token = token
        self._finished: dict[str, Sequence[EpochRead]] = {}
        """What every job that has succeeded has to show, for good."""
        self._studies: dict[str, list[float | None]] = {}
        """What every study's trials have reached, likewise."""

    @classmethod
    def of(cls, stack: Stack, ports: Mapping[str, int]) -> Self:
        """Wait until the containers take jobs, and found a team as README says."""
        url = f"http://127.0.0.1:{ports['XSAM_PORT']}"
        wait_until("the API answers", lambda: httpx.get(f"{url}/healthz").is_success)
        found = _TOKEN.search(stack.logs("api"))
        if found is None:
            raise EngineError("the API has printed no token for its first admin")
        admin = Client(url, token=found[1])
        wait_until("both Ray nodes and a dispatcher are there", lambda: _is_whole(admin))
        admin.admin.create_team("vision")
        admin.admin.put_user("ann", is_admin=False)
        admin.admin.put_member("vision", "ann", Role.MEMBER)
        token = admin.admin.create_token(user="ann", team="vision").token
        secure = f"https://localhost:{ports['XSAM_HTTPS_PORT']}"
        with tempfile.TemporaryDirectory() as folder:
            authority = Path(folder) / "root.crt"
            authority.write_text(stack.inside("proxy", "cat", _AUTHORITY))
            with mock.patch.dict(os.environ, {"SSL_CERT_FILE": str(authority)}):
                member = Client(secure, token=token)
                browser = httpx.Client(base_url=secure, timeout=30)
        return cls(stack, url=url, admin=admin, member=member, browser=browser, token=token)

    def __enter__(self) -> Self:
        """Return the team; leaving the block closes its connections."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        self._admin.close()
        self._member.close()
        self._browser.close()

    def train(self) -> None:
        """Run a small job."""
        self._finish(self._member.submit(FIRST).id)

    def train_on_two_nodes(self) -> None:
        """Run a job with a worker on each node, since each takes all of a node's CPUs.

        Raises:
            EngineError: it ran elsewhere.
        """
        num_cpus = int(min(node.num_cpus for node in self._admin.cluster().nodes if node.is_alive))
        wide = {**FIRST, "name": "wide", "resources": {"num_workers": NUM_NODES, "cpus_per_worker": num_cpus}}
        job_id = self._member.submit(wide).id
        self._finish(job_id)
        nodes = {block.node_id for block in self._admin.occupancy().items if block.job_id == job_id}
        if len(nodes) != NUM_NODES:
            raise EngineError(f"the job of {NUM_NODES} workers ran on {len(nodes)} nodes")

    def search_with_own_code(self) -> None:
        """Run a small study over the code of an example, whose folder is sent."""
        document = yaml.safe_load((EXAMPLE / "study.yaml").read_text())
        small = {**document, "base": {**document["base"], "epochs": 4}, "num_trials": 4, "concurrency": 2}
        spec, uploaded = self._member.bundles.resolve(small, EXAMPLE)
        if [one.is_new for one in uploaded] != [True]:
            raise EngineError("the folder of the example was not sent")
        study_id = self._member.studies.submit(spec).id
        wait_until("the study has ended", lambda: is_terminal(self._member.studies.get(study_id).state))
        study = self._member.studies.get(study_id)
        if study.state is not JobState.SUCCEEDED:
            raise EngineError(f"the study {study.state}: {study.failure}")
        self._studies[study_id] = self._values(study_id)
        if None in self._studies[study_id]:
            raise EngineError(f"trials of the study have no value: {self._studies[study_id]}")

    def use_tls(self) -> None:
        """Sign in to the page, look at a job, and hear of another while the event stream is open.

        Raises:
            EngineError: what came back is not what a browser needs.
        """
        form, origin = {"token": self._token, "next": "/jobs"}, str(self._browser.base_url).rstrip("/")
        answer = self._browser.post("/sign-in", data=form, headers={"Origin": origin, "Sec-Fetch-Site": "same-origin"})
        if not answer.headers.get("Set-Cookie", "").startswith("__Host-xsam="):
            raise EngineError(f"the page gave no cookie for TLS alone: {answer.status_code}, {answer.text[:300]}")
        page = self._browser.get("/jobs")
        if FIRST["name"] not in page.text or "Strict-Transport-Security" not in page.headers:
            raise EngineError(f"the page shows no jobs, or forgets that it is behind TLS: {page.status_code}")
        with self._browser.stream("GET", "/v1/changes", headers={"Accept": "text/event-stream"}) as stream:
            told = (line for line in stream.iter_lines() if line.startswith("data:"))
            next(told)  # where the stream begins
            job_id = self._member.submit({**FIRST, "name": "heard of"}).id
            if not any(job_id in json.dumps(line) for line in told):
                raise EngineError("the event stream ended before it told of a job")
        self._finish(job_id)

    def be_attacked(self) -> int:
        """Let a script of another team try what it can, in a container in which a job of this one trains.

        Returns:
            How many things it has tried.

        Raises:
            EngineError: something succeeded.
        """
        (worker,) = self._live_nodes() - {self._head().id}
        self._admin.admin.cordon(worker, reason="deploy-test")
        own = {"name": "attacked", "code": ".", "task": {"target": "prices:task"}, "batch_size": 32, "epochs": 100_000}
        spec, _ = self._member.bundles.resolve(own, EXAMPLE)
        victim = self._member.submit(spec).id
        self._reach(victim)
        self._admin.admin.create_team("audio")
        self._admin.admin.put_user("eve", is_admin=False)
        self._admin.admin.put_member("audio", "eve", Role.MEMBER)
        token = self._admin.admin.create_token(user="eve", team="audio").token
        with Client(self._url, token=token) as other:
            script, _ = other.bundles.resolve({"code": ".", "entrypoint": ["attack.py"], "epochs": 1}, ATTACK)
            attacker = other.submit({**script, "name": "attack", "config": self._told_of(victim)}).id
            wait_until("the attack has ended", lambda: is_terminal(other.get(attacker).state))
            if (job := other.get(attacker)).state is not JobState.SUCCEEDED:
                raise EngineError(f"the attack {job.state}: {job.failure}")
        outcome = json.loads(self._stack.inside("api", "cat", f"{JOBS}/{attacker}/checkpoints/outcome.json"))
        if self._member.get(victim).attempt != 1 or any(outcome.values()):
            raise EngineError(f"the other team could {', '.join(name for name, done in outcome.items() if done)}")
        if not self._member.artifacts(victim):
            raise EngineError("the API does not see the files of a job whose ranks are its team's user")
        self._member.cancel(victim)
        wait_until("the job has ended", lambda: is_terminal(self._member.get(victim).state))
        self._admin.admin.uncordon(worker)
        return len(outcome)

    def _told_of(self, job_id: str) -> dict[str, dict[str, Any]]:
        """Return what somebody who knows everything would tell an attacker of a job in the head's container."""

        def found(where: str, kind: str) -> dict[str, Any]:
            # Of files that go meanwhile it complains.
            paths = self._stack.inside("ray-head", "sh", "-c", f"find {where} -type {kind} 2> /dev/null || true")
            return {path: path for path in paths.split()}

        (unpacked,) = (path for path in found("/tmp", "f") if path.endswith("/prices.py"))
        (trains,) = (event.data for event in self._member.events(job_id) if event.kind == "training")
        return {
            "files": {
                **found(f"{JOBS}/{job_id}", "f"),
                **found("/data/artifacts/bundles", "f"),
                "unpacked code": unpacked,
            },
            "folders": {**found(f"{JOBS}/{job_id}", "d"), "all jobs": JOBS, "the service's": "/data/artifacts"},
            "processes": {"rank": trains["rank_pid"], "runner": trains["runner_pid"], "dispatcher": 1},
        }

    def _reach(self, job_id: str) -> None:
        """Wait until a job can be caught in its middle.

        Raises:
            EngineError: it has ended.
        """

        def is_caught() -> bool:
            job = self._member.get(job_id)
            return is_terminal(job.state) or job.progress.epochs_done >= _CAUGHT_AT

        wait_until("the job trains", is_caught)
        job = self._member.get(job_id)
        if is_terminal(job.state):
            raise EngineError(f"the job had ended before it was to be caught: {job.state}, {job.failure}")

    def _head(self) -> NodeRead:
        head = self._stack.inside("ray-head", "hostname", "-i").split()[0]
        (node,) = (node for node in self._admin.cluster().nodes if node.is_alive and node.host == head)
        return node

    def survive(self, service: str) -> str:
        """Kill a service's container while a job trains; return what came of it.

        Raises:
            EngineError: it does not come back, or something is lost.
        """
        node = self._head()
        if service == "ray-worker":  # so that the job is where it hurts
            self._admin.admin.cordon(node.id, reason="deploy-test")
        before = self._live_nodes()
        job_id = self._member.submit({**LONG, "name": f"without {service}"}).id
        self._reach(job_id)
        pid, killed_at = self._stack.kill(service), time.monotonic()
        wait_until(f"{service} is started again", lambda: self._stack.pid(service) not in (0, pid))
        started_s = time.monotonic() - killed_at
        gone = {"ray-head": before, "ray-worker": before - {node.id}}.get(service, set())
        wait_until(f"{service} works again", lambda: self._works(without=gone))
        back_s = time.monotonic() - killed_at
        attempts = self._finish(job_id)
        if service == "ray-worker":
            self._admin.admin.uncordon(node.id)
        self._compare_with_ledger()
        return f"restarted after {started_s:.0f} s, works after {back_s:.0f} s, job succeeded in attempt {attempts}"

    def _works(self, *, without: set[str]) -> bool:
        return self._browser.get("/healthz").is_success and _is_whole(self._admin) and not self._live_nodes() & without

    def _live_nodes(self) -> set[str]:
        return {node.id for node in self._admin.cluster().nodes if node.is_alive}

    def _finish(self, job_id: str) -> int:
        """Wait for a job, note what it has to show, and return its number of attempts.

        Raises:
            EngineError: it did not succeed, or an epoch of it is missing or there twice.
        """
        wait_until("the job has ended", lambda: is_terminal(self._member.get(job_id).state))
        job, epochs = self._member.get(job_id), self._member.metrics(job_id)
        if job.state is not JobState.SUCCEEDED:
            raise EngineError(f"job {job.name} {job.state}: {job.failure}")
        if [epoch.epoch for epoch in epochs] != list(range(1, job.progress.num_epochs + 1)):
            raise EngineError(f"job {job.name} has epochs {[epoch.epoch for epoch in epochs]}")
        self._finished[job_id] = epochs
        return job.attempt

    def _compare_with_ledger(self) -> None:
        for job_id, epochs in self._finished.items():
            if self._member.get(job_id).state is not JobState.SUCCEEDED or self._member.metrics(job_id) != epochs:
                raise EngineError(f"job {job_id} is not what it was before the crash")
            if not self._member.artifacts(job_id):
                raise EngineError(f"the files of job {job_id} are gone")
        for study_id, values in self._studies.items():
            if self._values(study_id) != values:
                raise EngineError(f"study {study_id} is not what it was before the crash")

    def _values(self, study_id: str) -> list[float | None]:
        return [trial.value for trial in self._member.studies.trials(study_id)]


def wait_until(what: str, condition: Callable[[], bool]) -> None:
    """Look twice a second; nobody answering yet counts as no.

    Raises:
        EngineError: it took longer than anything but a hang.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            if condition():
                return
            said = "no"
        except (ClientError, httpx.TransportError, EngineError) as e:
            said = str(e)
        if time.monotonic() > deadline:
            raise EngineError(f"waited {PATIENCE_S:g} s until {what}; at last: {said}")
        time.sleep(0.5)


def _is_whole(admin: Client) -> bool:
    """Return whether a dispatcher sees as many Ray nodes as there are."""
    cluster = admin.cluster()
    nodes = [node for node in cluster.nodes if node.is_alive]
    return bool(admin.readiness().dispatchers) and cluster.is_live and len(nodes) == NUM_NODES
