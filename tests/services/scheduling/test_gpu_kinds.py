"""A cluster with two kinds of GPU: jobs that name one get it or wait for it, the others take what there is."""

import pytest

from tests.support import jobs, planning
from xsam.services.cluster.service import NodeSeen
from xsam.services.db.session import Database
from xsam.services.errors import InfeasibleError
from xsam.services.jobs.states import JobState
from xsam.services.reports import cluster as overview
from xsam.services.reports import why
from xsam.services.specs.job import JobSpec

OLD = NodeSeen("a", "old", num_cpus=16, num_gpus=2, gpu_kind="A100")
NEW = NodeSeen("h", "new", num_cpus=16, num_gpus=2, gpu_kind="H100")
PLAIN = NodeSeen("p", "plain", num_cpus=16, num_gpus=2)
NODES = (OLD, NEW, PLAIN)


@pytest.fixture(autouse=True)
def _cluster(database: Database) -> None:
    planning.report_nodes(database, *NODES)


def _submit(database: Database, gpus: float = 1, kind: str | None = None, **more: object) -> str:
    return jobs.submit(database, resources={"gpus_per_worker": gpus, "gpu_kind": kind, **more})


def _places(database: Database, *ids: str) -> list[list[str] | None]:
    planning.decide(database, NODES)
    return [jobs.read(database, one).placement for one in ids]


@pytest.mark.parametrize(("kind", "node"), [("A100", "a"), ("H100", "h")])
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
    with pytest.raises(InfeasibleError, match="gpu_kind is 'B200'; the cluster has A100, H100") as caught:
        _submit(database, 1, "B200")
    assert caught.value.field == "resources.gpu_kind"


def test_gang_that_is_too_large_for_its_kind__is_refused_though_the_cluster_is_large_enough(database: Database) -> None:
    _submit(database, 2, num_workers=2)
    with pytest.raises(InfeasibleError, match="1 nodes of kind H100"):
        _submit(database, 2, "H100", num_workers=2)


def test_kind_whose_node_went_away__is_infeasible_not_placed_elsewhere(database: Database) -> None:
    job_id = _submit(database, 1, "H100")
    decision = planning.decide(database, [OLD, PLAIN])
    assert jobs.state(database, job_id) is JobState.QUEUED
    assert list(decision.reasons.infeasible) == [job_id]


def test_kind_without_gpus__is_refused() -> None:
    with pytest.raises(ValueError, match="ask for GPUs as well"):
        JobSpec.model_validate({"resources": {"gpu_kind": "H100"}})


def test_cluster__shows_kinds(database: Database) -> None:
    with database.read() as session:
        found = {node.host: node.gpu_kind for node in overview.overview(session).nodes}
    assert found == {"old": "A100", "new": "H100", "plain": None}
