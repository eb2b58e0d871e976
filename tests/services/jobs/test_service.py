import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support import jobs
from tests.support.jobs import ALICE, BOB
from xsam.services.cluster import service as cluster
from xsam.services.cluster.service import NodeSeen
from xsam.services.db.session import Database
from xsam.services.errors import ConflictError, InfeasibleError, InvalidRequestError, NotFoundError
from xsam.services.jobs import events, listing, service
from xsam.services.jobs.listing import JobFilter
from xsam.services.jobs.schemas import JobRead
from xsam.services.jobs.states import JobState
from xsam.services.specs.job import JobSpec


def _submit(database: Database, *, key: str | None = None, **fields: Any) -> tuple[str, bool]:
    with database.unit_of_work() as session:
        spec = JobSpec.model_validate(fields)
        job, is_new = service.submit(session, spec, actor=ALICE, idempotency_key=key)
        return job.id, is_new


def _ids(database: Database, **where: Any) -> list[str]:
    with database.read() as session:
        return [job.id for job in listing.list_jobs(session, where=JobFilter(**where))[0]]


class TestSubmit:
    def test_submit__writes_the_job_and_its_first_event(self, database: Database) -> None:
        job_id, is_new = _submit(database, name="first", priority=3, labels={"a": "b"})
        job = jobs.read(database, job_id)
        assert is_new
        assert (job.state, job.team, job.submitted_by, job.priority, job.labels) == (
            "queued",
            "red",
            "alice",
            3,
            {"a": "b"},
        )
        with database.read() as session:
            [event] = events.list_events(session, job_id)
        assert (event.kind, event.actor) == ("submitted", "alice")

    def test_submit__of_a_plane_takes_what_is_trained_from_the_other_job(self, database: Database) -> None:
        trained = jobs.submit(database, batch_size=32, seed=7, resources={"num_workers": 2, "cpus_per_worker": 3})
        looking = jobs.read(database, jobs.submit(database, plane={"job": trained}, priority=2))
        spec = JobRead.of(looking).spec
        assert (looking.kind, looking.num_workers, looking.cpus_per_worker, looking.num_epochs) == ("plane", 1, 3, 1)
        assert (looking.name, spec.batch_size, spec.seed, spec.priority) == (f"plane of {trained}", 32, 7, 2)
        assert _ids(database) == [trained]  # lists are of what trains
        assert _submit(database, key="k", plane={"job": trained})[1]
        assert not _submit(database, key="k", plane={"job": trained})[1]

    def test_submit__of_a_plane_of_what_can_t_be_looked_at_is_refused(self, database: Database) -> None:
        trained = jobs.submit(database)
        looking = jobs.submit(database, plane={"job": trained})
        others = jobs.submit(database, actor=BOB)
        for job_id, why in ((looking, trained), (others, "team red"), ("nope", "team red")):
            with pytest.raises(InvalidRequestError, match=why) as caught:
                jobs.submit(database, plane={"job": job_id})
            assert caught.value.field == "plane.job"

    def test_submit__stores_a_specification_that_reads_back_equal(self, database: Database) -> None:
        spec = JobSpec.model_validate({"optimizer": {"variant": "sam", "rho": 0.05}, "epochs": 3})
        with database.unit_of_work() as session:
            job, _ = service.submit(session, spec, actor=ALICE)
        assert JobRead.of(jobs.read(database, job.id)).spec == spec

    def test_submit__with_the_same_key_returns_the_first_job(self, database: Database) -> None:
        first, second = _submit(database, key="k", epochs=2), _submit(database, key="k", epochs=2)
        assert (first[0], True) == first
        assert second == (first[0], False)
        assert jobs.count(database, "jobs") == 1

    def test_submit__with_the_same_key_and_another_specification_is_a_conflict(self, database: Database) -> None:
        _submit(database, key="k", epochs=2)
        with pytest.raises(ConflictError) as caught:
            _submit(database, key="k", epochs=3)
        assert caught.value.field == "Idempotency-Key"

    def test_submit__keys_of_different_teams_do_not_meet(self, database: Database) -> None:
        _submit(database, key="k")
        with database.unit_of_work() as session:
            _, is_new = service.submit(session, JobSpec(), actor=BOB, idempotency_key="k")
        assert is_new

    def test_submit__with_one_key_from_many_threads_makes_one_job(self, database: Database) -> None:
        barrier = threading.Barrier(6)

        def run(_: int) -> tuple[str, bool]:
            barrier.wait(timeout=30)
            return _submit(database, key="same")

        with ThreadPoolExecutor(6) as pool:
            results = list(pool.map(run, range(6)))
        assert len({job_id for job_id, _ in results}) == 1
        assert sum(is_new for _, is_new in results) == 1

    def test_submit__refuses_code_of_packages_that_are_not_allowed(self, database: Database) -> None:
        with pytest.raises(InvalidRequestError, match="allowed packages are: none") as caught:
            _submit(database, model={"name": "custom", "target": "os.path:join"})
        assert caught.value.field == "model.target"
        assert jobs.count(database, "jobs") == 0

    def test_submit__refuses_what_the_cluster_could_never_hold(self, database: Database) -> None:
        with database.unit_of_work() as session:
            nodes = [NodeSeen("n1", "host", num_cpus=4, num_gpus=0)]
            cluster.report_alive(session, "d", nodes=nodes, num_warm_runners=0)
        with pytest.raises(InfeasibleError):
            _submit(database, resources={"num_workers": 8})
        assert jobs.count(database, "jobs") == 0


class TestList:
    @pytest.fixture
    def five(self, database: Database) -> list[str]:
        return [jobs.submit(database, name=f"job{n % 2}", labels={"n": str(n)}) for n in range(5)]

    def _pages(self, database: Database, limit: int) -> Iterator[list[str]]:
        cursor = None
        while True:
            with database.read() as session:
                page, cursor, _ = listing.list_jobs(session, where=JobFilter(), cursor=cursor, limit=limit)
            yield [job.id for job in page]
            if cursor is None:
                return

    @pytest.mark.parametrize("limit", [1, 2, 5, 6])
    def test_list_jobs__pages_hold_every_job_once_newest_first(
        self, database: Database, five: list[str], limit: int
    ) -> None:
        pages = list(self._pages(database, limit))
        assert [job_id for page in pages for job_id in page] == five[::-1]
        assert all(len(page) == limit for page in pages[:-1])

    def test_list_jobs__pages_stand_still_while_jobs_are_added(self, database: Database, five: list[str]) -> None:
        pages = self._pages(database, 2)
        first = next(pages)
        jobs.submit(database)
        assert first + [job_id for page in pages for job_id in page] == five[::-1]

    def test_list_jobs__pages_split_jobs_of_one_instant(self, database: Database, five: list[str]) -> None:
        instant = jobs.read(database, five[0]).created_at
        for job_id in five:
            jobs.set_columns(database, job_id, created_at=instant)
        assert sorted(job_id for page in self._pages(database, 2) for job_id in page) == sorted(five)

    def test_list_jobs__filters(self, database: Database, five: list[str]) -> None:
        jobs.claim(database, five[0])
        other = jobs.submit(database, actor=BOB)
        assert _ids(database, states=[JobState.RUNNING]) == [five[0]]
        assert _ids(database, team="blue") == [other]
        assert _ids(database, name="job1") == [five[3], five[1]]
        assert _ids(database, labels={"n": "2"}) == [five[2]]
        assert _ids(database, name="job1", labels={"n": "2"}) == []

    @pytest.mark.parametrize("key", ["a.b/c-d", "x", "A9"])
    @pytest.mark.parametrize("value", ["", "it's", 'say "no"', "100%", "$.x", "ü"])
    def test_list_jobs__finds_labels_with_any_allowed_text(self, database: Database, key: str, value: str) -> None:
        job_id = jobs.submit(database, labels={key: value})
        jobs.submit(database, labels={"other": value})
        assert _ids(database, labels={key: value}) == [job_id]

    def test_list_jobs__finds_no_label_of_another_type_of_value(self, database: Database) -> None:
        job_id = jobs.submit(database, labels={"n": "1"})
        assert _ids(database, labels={"n": "1"}) == [job_id]
        assert _ids(database, labels={"n": "01"}) == []


def test_get__of_an_unknown_job_is_not_found(database: Database) -> None:
    with database.read() as session, pytest.raises(NotFoundError) as caught:
        service.get(session, "nosuchjob")
    assert caught.value.field == "job_id"
