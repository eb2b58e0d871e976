"""Several nodes with logical GPUs on one machine: placement, jobs on GPUs, what is given back, the loss of a node."""

import os
import re
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from ray.actor import ActorHandle
from ray.util import placement_group

from tests.support.callers import make_team
from tests.support.live_service import LiveService, Nodes, OtherProgram, live_service
from tests.workers.conftest import Clusters
from xsam.services.artifacts.store import JobFolder
from xsam.services.cluster import cordons
from xsam.services.jobs.queue import Lease
from xsam.services.jobs.states import JobState
from xsam.services.teams.models import Team
from xsam.workers.dispatch import device_checks, dispatcher
from xsam.workers.dispatch.device_checks import UNCHECKED, DeviceChecks
from xsam.workers.dispatch.ray_cluster import MEMORY_LABEL
from xsam.workers.dispatch.warm_pool import WarmPool
from xsam.workers.messages import DeviceFinding
from xsam.workers.runner.placement_group import new_group_name

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TWO_WORKERS = {
    "resources": {"num_workers": 2, "cpus_per_worker": 3, "gpus_per_worker": 1},  # so that no node holds both
    "optimizer": {"variant": "xsam", "rho": 0.1},
    "retry": {"first_delay_s": 0.1},
}


class Readings:
    """What an `nvidia-smi` of all nodes says, or that it can't say anything.

    Args:
        folder: where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "readings"
        command = folder / "nvidia-smi"
        command.write_text(f"#!/bin/sh\nexec cat {self._file}\n")
        command.chmod(0o755)

    def say(self, percent: Mapping[str, int]) -> None:
        """Let each node's GPUs be used so much, by index."""
        lines = [f"{index}, GPU-{index}, {used}, 100, 81559\n" for index, used in percent.items()]
        new = self._file.with_suffix(".new")
        new.write_text("".join(lines))
        new.replace(self._file)

    def end(self) -> None:
        """Let it fail again, as it did at first."""
        self._file.unlink()


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> Readings:
    return Readings(tmp_path_factory.mktemp("readings"))


@pytest.fixture(scope="module")
def nodes(clusters: Clusters, readings: Readings) -> Iterator[Nodes]:
    """A head without GPUs and two nodes with four logical GPUs each."""
    clusters.end()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{readings.folder}:{os.environ['PATH']}")
        started = Nodes()
        _add_nodes(started)
    yield started
    started.shutdown()


def _add_nodes(started: Nodes) -> None:
    for zone, kind in (("a", "H100"), ("b", "A100")):
        labels = {"zone": zone, "ray.io/accelerator-type": kind, MEMORY_LABEL: "80" if kind == "H100" else "40"}
        started.add(num_cpus=4, num_gpus=4, labels=labels)


@pytest.fixture(scope="module")
def live(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """A dispatcher that has joined the cluster."""
    folder = tmp_path_factory.mktemp("nodes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatcher, "REPORT_INTERVAL_S", 0.3)
        with live_service(folder, num_cpus=None, warm_processes=1, device="cpu", address=nodes.address) as started:
            yield started


def test_nodes__announce_what_they_are_and_jobs_go_where_they_ask_to(live: LiveService) -> None:
    known = {node.traits.gpu_kind: node for node in live.dispatcher.nodes}
    traits = known["A100"].traits
    assert traits.gpu_memory_gb == 40
    assert dict(traits.labels)["zone"] == "b"
    assert not any(key.startswith("ray.io/node-id") for key, _ in traits.labels)
    sgd = {"epochs": 1, "optimizer": {"variant": "sgd"}}
    asked = (
        {"gpus_per_worker": 1, "gpu_kind": "a100"},
        {"gpus_per_worker": 1, "min_gpu_memory_gb": 60},
        {"node_labels": {"zone": "b"}},
    )
    done = [live.finish(live.submit(**sgd, resources=resources)) for resources in asked]
    assert [job.state for job in done] == [JobState.SUCCEEDED] * 3
    assert [live.attempts(job.id)[0].placement for job in done] == [
        [known[kind].id] for kind in ("A100", "H100", "A100")
    ]


def test_cpu_job__is_placed_away_from_gpus(live: LiveService) -> None:
    job_id = live.submit(epochs=1, optimizer={"variant": "sgd"})
    live.turn_until(lambda: live.job(job_id).state == JobState.RUNNING)
    (node_id,) = live.job(job_id).placement or []
    gpus = {node.id: node.num_gpus for node in live.dispatcher.nodes}
    assert gpus[node_id] == 0
    assert live.finish(job_id).state == JobState.SUCCEEDED


def test_two_workers__train_on_two_nodes_as_two_do_on_cpus_and_give_all_back(live: LiveService) -> None:
    job_id = live.submit(epochs=2, **TWO_WORKERS)
    live.turn_until(lambda: live.job(job_id).state == JobState.RUNNING)
    assert len(set(live.job(job_id).placement or [])) == 2
    on_gpus = live.finish(job_id)
    assert on_gpus.state == JobState.SUCCEEDED, on_gpus.failure_message
    on_cpus = live.finish(
        live.submit(epochs=2, **{**TWO_WORKERS, "resources": {"num_workers": 2, "cpus_per_worker": 3}})
    )
    assert on_gpus.summary is not None
    assert on_cpus.summary is not None
    assert on_gpus.summary["final_eval_loss"] == on_cpus.summary["final_eval_loss"]
    live.turn_until(live.all_resources_are_free)


def test_drained_node__sends_its_job_to_another_without_losing_an_epoch(live: LiveService) -> None:
    job_id = live.submit(epochs=8, optimizer={"variant": "sgd"}, batch_size=8, resources={"gpus_per_worker": 1})
    live.reach_epoch(job_id, 2)
    (left,) = live.job(job_id).placement or []
    with live.database.unit_of_work() as session:
        cordons.put(session, left, reason="new fans", by="root", drain_within_s=0)
    live.turn_until(lambda: live.job(job_id).attempt == 2)
    assert live.job(job_id).placement != [left]
    assert live.finish(job_id).state == JobState.SUCCEEDED
    with live.database.unit_of_work() as session:
        cordons.lift(session, left)
    first, second = live.attempts(job_id)
    assert (first.outcome, second.outcome) == ("preempted", "succeeded")
    assert first.finished_at is not None
    assert second.first_step_at is not None
    print(f"without training for {(second.first_step_at - first.finished_at).total_seconds():.2f} s")
    assert [epoch.epoch for epoch in live.epochs(job_id)] == list(range(1, 9))
    for attempt, ending in ((1, "the attempt ended: no failure"), (2, "the attempt ended: no failure")):
        text = (JobFolder(live.settings.artifact_root, job_id).attempt(attempt) / "runner.log").read_text()
        assert f"[job {job_id}, attempt {attempt}]" in text
        assert ending in text


def _visible_gpus(live: LiveService, job_id: str) -> list[list[str]]:
    """Return the GPUs that each rank found in its environment, in rank order."""
    found = re.findall(r"rank (\d) of \d on \S+ with GPU (\S+)", live.log(job_id))
    return [gpus.split(",") for _, gpus in sorted(found)]


def test_ranks__see_their_own_gpus_and_no_others(live: LiveService) -> None:
    """One GPU, two of them in one rank, two ranks with one each; all at once on two nodes of four."""
    one, two_in_one, pair = (
        live.submit(epochs=1, optimizer={"variant": "sgd"}, resources=resources)
        for resources in ({"gpus_per_worker": 1}, {"gpus_per_worker": 2}, {"num_workers": 2, "gpus_per_worker": 1})
    )
    for job_id in (one, two_in_one, pair):
        assert live.finish(job_id).state == JobState.SUCCEEDED
    assert [len(gpus) for gpus in _visible_gpus(live, one)] == [1]
    assert [len(gpus) for gpus in _visible_gpus(live, two_in_one)] == [2]
    first, second = _visible_gpus(live, pair)
    assert len(first) == len(second) == 1
    assert first != second, "both workers are on one node"
    on_cpus = live.submit(epochs=1, optimizer={"variant": "sgd"})
    assert live.finish(on_cpus).state == JobState.SUCCEEDED
    assert "rank 0 of 1" in live.log(on_cpus)
    assert _visible_gpus(live, on_cpus) == []


def test_gpu_job__runs_in_a_warm_rank(live: LiveService) -> None:
    live.turn_until(live.dispatcher.is_warm)
    job_id = live.submit(epochs=2, optimizer={"variant": "sgd"}, resources={"gpus_per_worker": 1})
    ready = {handle for handles in live.dispatcher._processes.ranks._idle.values() for handle in handles}
    live.turn_until(lambda: live.job(job_id).state == JobState.RUNNING)
    assert set(live.dispatcher.ranks_of(job_id)) <= ready
    assert live.finish(job_id).state == JobState.SUCCEEDED


def _let_idle(live: LiveService, team: str, **policy: object) -> None:
    with live.database.unit_of_work() as session:
        session.get_one(Team, team).idle = {"after_s": 1, "grace_s": 0, **policy}


def test_idle_gpus__are_given_back_and_a_job_that_comes_again_is_paused(live: LiveService, readings: Readings) -> None:
    for team in ("patient", "strict"):
        make_team(live.database, team)
    _let_idle(live, "strict", then="end")
    endless = {"epochs": 10_000, "optimizer": {"variant": "sgd"}}
    on_one_node = {"gpus_per_worker": 1, "node_labels": {"zone": "a"}}
    pair = live.submit("patient", **endless, resources={"num_workers": 2, **on_one_node})
    live.reach_epoch(pair, 1)
    [_, [second]] = _visible_gpus(live, pair)
    readings.say({**dict.fromkeys("0123", 0), second: 90})
    alone = live.submit("strict", **endless, resources=on_one_node)
    live.turn_until(lambda: live.job(pair).gpu_utilization is not None)
    assert live.job(pair).gpu_utilization == 0.45, "of both ranks' GPUs"
    _let_idle(live, "patient", then="requeue", max_requeues=1)
    live.turn_until(lambda: live.job(alone).state == JobState.CANCELLED)
    told = ("idle", "idle_ended", "cancel_requested", "cancelled")
    # A reading that comes late, from a busy machine, takes the first warning back.
    assert tuple(dict.fromkeys(kind for kind in live.event_kinds(alone) if kind in told)) == told
    assert (live.job(pair).attempt, live.job(pair).idle_warned_at) == (1, None), "one of its GPUs works"
    readings.say(dict.fromkeys("0123", 0))
    live.turn_until(lambda: live.job(pair).attempt == 2)
    assert [kind for kind in live.event_kinds(pair) if kind in ("idle", "preempting")] == ["idle", "preempting"]
    live.turn_until(lambda: live.overview().used_gpus == 2 and live.ray_and_rows_agree())
    live.turn_until(lambda: live.job(pair).state == JobState.PAUSED)
    assert "because its GPUs were idle again" in live.why(pair)
    live.turn_until(live.all_resources_are_free)
    readings.end()
    live.cancel(pair)


def test_group_that_belongs_to_no_attempt__is_named_and_removed(live: LiveService) -> None:
    job_id = live.finish(live.submit(epochs=1, optimizer={"variant": "sgd"})).id
    # As runners name theirs; and as Ray Train leaves its own, without a name.
    for name in (new_group_name(Lease(job_id, "", 1)), ""):
        assert placement_group([{"CPU": 2, "GPU": 3}], name=name).wait(30)
    assert not live.all_resources_are_free()
    live.turn_until(lambda: sum(node.foreign_gpus for node in live.dispatcher.nodes) == 6)
    live.turn_until(live.all_resources_are_free)
    live.turn_until(lambda: not any(node.foreign for node in live.dispatcher.nodes))
    assert live.event_kinds(job_id)[-1] == "swept"


def test_what_others_hold_in_ray__is_named_left_alone_and_planned_around(live: LiveService, nodes: Nodes) -> None:
    others = OtherProgram(nodes.address, num_groups=2, cpus=1, gpus=4)
    live.turn_until(lambda: sum(node.foreign_gpus for node in live.dispatcher.nodes) == 8)
    job_id = live.submit(epochs=1, optimizer={"variant": "sgd"}, resources={"gpus_per_worker": 1})
    live.turn_until(lambda: "are held in Ray by no job of this service" in live.why(job_id))
    assert live.event_kinds(job_id) == ["submitted"], "it was not brought where it has no room"
    others.leave()
    assert live.finish(job_id).state == JobState.SUCCEEDED


def test_cancel__gives_both_gpus_back(live: LiveService) -> None:
    job_id = live.submit(epochs=10_000, **TWO_WORKERS)
    live.reach_epoch(job_id, 1)
    live.turn_until(live.ray_and_rows_agree)
    assert live.overview().used_gpus == 2
    live.cancel(job_id)
    assert live.finish(job_id).state == JobState.CANCELLED
    live.turn_until(live.all_resources_are_free)


@pytest.mark.parametrize("victim", ["rank_pid", "runner_pid"])
def test_killed_process__costs_an_attempt_and_no_gpu(live: LiveService, victim: str) -> None:
    job_id = live.submit(epochs=6, **TWO_WORKERS)
    live.reach_epoch(job_id, 2)
    os.kill(live.training_event(job_id)[victim], signal.SIGKILL)
    job = live.finish(job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2), job.failure_message
    assert [row.epoch for row in live.epochs(job_id)] == list(range(1, 7))
    live.turn_until(live.all_resources_are_free)


def test_half_a_gpu__two_jobs_share_one(live: LiveService) -> None:
    first, second = (live.submit(epochs=10_000, resources={"gpus_per_worker": 0.5}) for _ in range(2))
    for job_id in (first, second):
        live.reach_epoch(job_id, 1)
    assert live.job(first).placement == live.job(second).placement
    live.turn_until(live.ray_and_rows_agree)
    assert _visible_gpus(live, first) == _visible_gpus(live, second)
    for job_id in (first, second):
        live.cancel(job_id)
    assert {live.finish(one).state for one in (first, second)} == {JobState.CANCELLED}
    live.turn_until(live.all_resources_are_free)


def test_gpu_that_does_not_work__is_named_and_given_back(live: LiveService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where GPUs are only announced and nobody said that this is meant."""
    placer = live.dispatcher._placer
    monkeypatch.setattr(placer, "_config", replace(placer._config, is_cpu_only=False))
    job_id = live.submit(**{**TWO_WORKERS, "epochs": 1, "retry": {"infrastructure": 0}})
    job = live.finish(job_id)
    assert job.state == JobState.FAILED
    assert "but CUDA does not work there; XSAM_TRAINING__DEVICE=cpu" in str(job.failure_message)
    live.turn_until(live.all_resources_are_free)


def test_node_that_cannot_do_what_it_announces__is_set_aside_with_the_reason(
    live: LiveService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check is the real one: this machine has no GPU."""
    with monkeypatch.context() as patch:
        patch.setattr(live.dispatcher, "_devices", DeviceChecks(live.dispatcher._processes.ranks, is_on=True))
        live.turn_until(lambda: sum("torch sees 0" in (node.set_aside or "") for node in live.dispatcher.nodes) == 2)
        job_id = live.submit(epochs=1, optimizer={"variant": "sgd"}, resources={"gpus_per_worker": 1})
        live.turn_until(lambda: "are set aside: it announces 4 GPUs, of which torch sees 0" in live.why(job_id))
        assert live.finish(live.submit(epochs=1, optimizer={"variant": "sgd"})).state == JobState.SUCCEEDED
        assert live.job(job_id).state == JobState.QUEUED
    assert live.finish(job_id).state == JobState.SUCCEEDED, "as soon as its node is not set aside any more"


class _Scripted:
    """A rank as far as a check needs one."""

    def __init__(self, fault: str | None) -> None:
        self._fault = fault

    def check_devices(self, num_announced: int) -> DeviceFinding:
        return DeviceFinding(self._fault and f"{self._fault} of {num_announced}", gpu_memory_gb=40.0)


class _ScriptedRanks(WarmPool):
    """Ranks that give these answers, one each."""

    def __init__(self, *faults: str | None) -> None:
        super().__init__(ray.remote(_Scripted), "scripted", size=0)
        self._faults = iter(faults)

    def has_ready(self, node_id: str) -> bool:
        return True

    def take(self, node_id: str) -> ActorHandle:
        return self._actor_class.options(num_cpus=0).remote(next(self._faults))


def test_node_set_aside__is_checked_again_until_it_works_and_after_a_failed_run(
    live: LiveService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_checks, "FIRST_PAUSE_S", 0.0)
    node = next(node for node in live.dispatcher.nodes if node.num_gpus)
    checks = DeviceChecks(_ScriptedRanks("broken: 3", "broken: 2", None, None), is_on=True)
    seen: list[str | None] = []

    def look_until_works() -> bool:
        checks.look([node])
        fault = checks.fault(node.id)
        if not seen or seen[-1] != fault:
            seen.append(fault)
        return fault is None

    live.turn_until(look_until_works)
    assert seen == [UNCHECKED, "broken: 3 of 4", "broken: 2 of 4", None]
    assert checks.gpu_memory_gb(node.id) == 40
    checks.doubt(node.id)
    assert checks.fault(node.id) == UNCHECKED
    live.turn_until(look_until_works)


def test_node_lost_in_mid_run__the_job_goes_on_elsewhere(live: LiveService, nodes: Nodes) -> None:
    retry = {"first_delay_s": 0.1}
    job_id = live.submit(epochs=40, optimizer={"variant": "sam"}, resources={"gpus_per_worker": 1}, retry=retry)
    live.reach_epoch(job_id, 2)
    (lost,) = live.job(job_id).placement or []
    nodes.remove(lost)
    job = live.finish(job_id)
    assert job.state == JobState.SUCCEEDED
    assert job.attempt == 2, [(a.number, a.failure_message) for a in live.attempts(job_id)]
    assert job.placement != [lost]
    live.turn_until(lambda: lost not in {node.id for node in live.dispatcher.nodes})
    assert [row.epoch for row in live.epochs(job_id)] == list(range(1, 41))
    live.turn_until(live.all_resources_are_free)
