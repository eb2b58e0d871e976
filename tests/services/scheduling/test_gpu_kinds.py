"""A cluster with two kinds of GPU: jobs that name one get it or wait for it, the others take what there is."""

from typing import Any

import pytest

from tests.support import jobs, planning
from xsam.services.cluster.service import NodeSeen
from xsam.services.cluster.traits import NodeTraits
from xsam.services.db.session import Database
from xsam.services.errors import InfeasibleError
from xsam.services.jobs.states import JobState
from xsam.services.reports import cluster as overview
from xsam.services.reports import job_preview, why
from xsam.services.specs.job import JobSpec
from xsam.services.teams.models import Team

OLD = NodeSeen("a", "old", num_cpus=16, num_gpus=2, traits=NodeTraits("A100", 40.0, (("rack", "7"), ("zone", "a"))))
NEW = NodeSeen("h", "new", num_cpus=16, num_gpus=2, traits=NodeTraits("H100", 80.0, (("zone", "b"),)))
PLAIN = NodeSeen("p", "plain", num_cpus=16, num_gpus=2)
NODES = (OLD, NEW, PLAIN)


@pytest.fixture(autouse=True)
def _cluster(database: Database) -> None:
    planning.report_nodes(database, *NODES)


def _submit(database: Database, gpus: float = 1, kind: str | None = None, **more: object) -> str:
    resources = {"gpus_per_worker": gpus, "gpu_kind": kind, **more}
    return jobs.submit(database, resources=resources)


def _places(database: Database, *ids: str) -> list[list[str] | None]:
    planning.decide(database, NODES)
    return [jobs.read(database, one).placement for one in ids]


@pytest.mark.parametrize(("kind", "node"), [("A100", "a"), ("H100", "h"), ("h100", "h")])
@pytest.mark.parametrize("gpus", [0.5, 1, 2])
def test_job__gets_the_kind_it_names(database: Database, kind: str, node: str, gpus: float) -> None:
    assert _places(database, _submit(database, gpus, kind)) == [[node]]


def test_gang__stays_on_its_kind(database: Database) -> None:
    assert _places(database, _submit(database, 1, "H100", num_workers=2)) == [["h", "h"]]


def test_kind_that_is_taken__is_waited_for_while_others_pass(database: Database) -> None:
    first, second = (_submit(database, 2, "H100") for _ in range(2))
    other = _submit(database, 2)
    (placed, waiting, passed) = _places(database, first, second, other)
    assert (placed, waiting) == (["h"], None)
    assert passed is not None
    assert passed != ["h"]
    with database.read() as session:
        found = why.explain(session, second)
    assert "H100" in found.sentence
    assert found.request is not None
    assert found.request.gpu_kind == "H100"


def test_job_without_a_kind__takes_any(database: Database) -> None:
    ids = [_submit(database, 2) for _ in range(3)]
    assert sorted(place[0] for place in _places(database, *ids) if place) == ["a", "h", "p"]


def test_kind_that_is_not_there__is_refused_at_once_with_those_that_are(database: Database) -> None:
    with pytest.raises(InfeasibleError, match="gpu_kind is 'B200', which no node has; there are: A100, H100") as caught:
        _submit(database, 1, "B200")
    assert caught.value.field == "resources.gpu_kind"


def test_gang_that_is_too_large_for_its_kind__is_refused_though_the_cluster_is_large_enough(database: Database) -> None:
    _submit(database, 2, num_workers=2)
    with pytest.raises(InfeasibleError, match=r"1 nodes \(kind H100\)"):
        _submit(database, 2, "H100", num_workers=2)


def test_kind_whose_node_went_away__is_infeasible_not_placed_elsewhere(database: Database) -> None:
    job_id = _submit(database, 1, "H100")
    decision = planning.decide(database, [OLD, PLAIN])
    assert jobs.state(database, job_id) is JobState.QUEUED
    assert list(decision.reasons.infeasible) == [job_id]


def test_kind_without_gpus__is_refused() -> None:
    with pytest.raises(ValueError, match="ask for GPUs as well"):
        JobSpec.model_validate({"resources": {"gpu_kind": "H100"}})


@pytest.mark.parametrize(
    ("wanted", "nodes"),
    [
        ({"min_gpu_memory_gb": 40}, {"a", "h"}),
        ({"min_gpu_memory_gb": 40.5}, {"h"}),
        ({"node_labels": {"zone": "a"}}, {"a"}),
        ({"node_labels": {"zone": "a", "rack": "7"}}, {"a"}),
        ({"node_labels": {"zone": "b"}, "min_gpu_memory_gb": 80, "gpu_kind": "h100"}, {"h"}),
    ],
)
def test_job__gets_the_memory_and_labels_it_names_and_waits_where_they_are_taken(
    database: Database, wanted: dict[str, Any], nodes: set[str]
) -> None:
    ids = [jobs.submit(database, resources={"gpus_per_worker": 2, **wanted}) for _ in range(3)]
    places = [place for place in _places(database, *ids) if place is not None]
    assert sorted(place[0] for place in places) == sorted(nodes)


def test_job_without_gpus__goes_where_its_labels_are(database: Database) -> None:
    assert _places(database, jobs.submit(database, resources={"node_labels": {"zone": "b"}})) == [["h"]]


@pytest.mark.parametrize(
    ("wanted", "field", "known"),
    [
        ({"min_gpu_memory_gb": 100}, "min_gpu_memory_gb", "40 GB, 80 GB"),
        ({"node_labels": {"zone": "c"}}, "node_labels", "rack=7, zone=a, zone=b"),
        ({"gpu_kind": "H100", "node_labels": {"zone": "a"}}, "node_labels", "zone=b"),
    ],
)
def test_what_no_node_has__is_refused_at_once_with_what_they_have(
    database: Database, wanted: dict[str, Any], field: str, known: str
) -> None:
    with pytest.raises(InfeasibleError, match=f"{field} is .*, which no node has; there are: {known}$") as caught:
        jobs.submit(database, resources={"gpus_per_worker": 1, **wanted})
    assert caught.value.field == f"resources.{field}"


def test_waiting_for_labels__is_said_of_each_job_like_it(database: Database) -> None:
    wanted = {"gpus_per_worker": 2, "node_labels": {"zone": "a"}, "min_gpu_memory_gb": 40}
    ids = [jobs.submit(database, resources=wanted) for _ in range(3)]
    _places(database, *ids)
    with database.read() as session:
        for one in ids[1:]:
            found = why.explain(session, one)
            assert "2 GPUs and 1 CPU (at least 40 GB each, zone=a)" in found.sentence
            assert found.request is not None
            assert found.request.node_labels == {"zone": "a"}


def test_preview__says_on_how_many_nodes_it_fits(database: Database) -> None:
    counts = {}
    for name, wanted in {"any": {}, "kind": {"gpu_kind": "a100"}, "memory": {"min_gpu_memory_gb": 30}}.items():
        spec = JobSpec.model_validate({"resources": {"gpus_per_worker": 1, **wanted}})
        with database.read() as session:
            counts[name] = job_preview.preview(session, spec, team=jobs.ALICE.team).num_suitable_nodes
    assert counts == {"any": 3, "kind": 1, "memory": 2}


def test_quota_of_a_kind__bounds_those_who_name_it_and_sends_the_others_elsewhere(database: Database) -> None:
    with database.unit_of_work() as session:
        session.merge(Team(name=jobs.ALICE.team, quota_gpus_by_kind={"h100": 1}))
    with pytest.raises(InfeasibleError, match="may hold 1 of them") as caught:
        _submit(database, 2, "H100")
    assert caught.value.field == "resources.gpu_kind"
    named, waits = _submit(database, 1, "H100"), _submit(database, 1, "H100")
    others = [_submit(database, 2) for _ in range(3)]
    first, second, *rest = _places(database, named, waits, *others)
    assert (first, second) == (["h"], None)
    assert sorted(place[0] for place in rest if place) == ["a", "p"]
    with database.read() as session:
        assert "By kind of GPU it holds 1 of 1 h100." in why.explain(session, waits).sentence


def test_cluster__shows_kinds(database: Database) -> None:
    with database.read() as session:
        found = {one.host: (one.gpu_kind, one.gpu_memory_gb, one.labels) for one in overview.overview(session).nodes}
    assert found == {
        "old": ("A100", 40.0, {"rack": "7", "zone": "a"}),
        "new": ("H100", 80.0, {"zone": "b"}),
        "plain": (None, None, {}),
    }
