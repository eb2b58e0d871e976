"""A run from its submit to its verdict, whatever dies in between."""

from typing import Any

import pytest

from tests.support import jobs, studies
from tests.support.lab_runs import QUALITY
from xsam.services.db.session import Database
from xsam.services.errors import ConflictError, InvalidRequestError, InvalidTransitionError, NotFoundError
from xsam.services.jobs import queue
from xsam.services.jobs import verbs as job_verbs
from xsam.services.jobs.models import Job
from xsam.services.lab import advance, service, verbs
from xsam.services.lab.advance import Computation
from xsam.services.lab.models import LabRun
from xsam.services.lab.schemas import LabRunRead
from xsam.services.lab.spec import LabSpec
from xsam.services.settings import NO_CODE

SMALL = {"dataset": {"name": "synthetic", "num_train": 64, "num_eval": 32}, "batch_size": 32, "epochs": 2}


def begin(database: Database, *, key: str | None = None, **fields: Any) -> str:
    spec = LabSpec.model_validate({"figure": "2", "scale": "digits", "base": SMALL} | fields)
    with database.unit_of_work() as session:
        return service.submit(session, spec, actor=jobs.ALICE, idempotency_key=key)[0].id


def turn(database: Database, run_id: str) -> list[Computation]:
    with database.unit_of_work() as session:
        return advance.advance(session, run_id, allowed=NO_CODE)


def read(database: Database, run_id: str) -> LabRun:
    with database.read() as session:
        return service.get(session, run_id)


def keys(database: Database) -> list[str]:
    with database.read() as session:
        return sorted(job.idempotency_key or "" for job in session.query(Job))


def test_turns__queue_each_stage_once(database: Database) -> None:
    run_id = begin(database)
    turn(database, run_id)
    turn(database, run_id)
    names = [f"{group}-{seed}" for group in ("small", "usual", "wide") for seed in range(3)]
    assert keys(database) == [f"lab/{run_id}/{name}" for name in names]
    assert [stage.state for stage in LabRunRead.of(read(database, run_id)).stages] == ["queued"] * 9
    with database.read() as session:
        assert advance.running(session) == [run_id]


def test_turn__that_dies_before_its_commit_is_taken_again(database: Database) -> None:
    run_id = begin(database)
    with database.read() as session:  # what it has flushed is rolled back
        advance.advance(session, run_id, allowed=NO_CODE)
    assert keys(database) == []
    turn(database, run_id)
    assert len(keys(database)) == 9


def test_turn__finds_the_jobs_of_a_row_that_does_not_know_them(database: Database) -> None:
    """As after the restore of an older row: the keys say what is there."""
    run_id = begin(database)
    turn(database, run_id)
    work = read(database, run_id).work
    with database.unit_of_work() as session:
        service.get(session, run_id).work = {}
    turn(database, run_id)
    assert read(database, run_id).work == work
    assert len(keys(database)) == 9


def test_computation__is_wanted_until_it_is_there_and_ends_in_a_verdict(database: Database) -> None:
    run_id = begin(database, figure="1b", base={})
    (wanted,) = turn(database, run_id)
    assert (wanted.stage, wanted.document["name"]) == ("quality", "ascent_quality")
    assert turn(database, run_id) == [wanted]
    with database.unit_of_work() as session:
        advance.take_computed(session, run_id, "quality", QUALITY)
        advance.take_computed(session, run_id, "quality", {"rows": []})  # a second one, of an earlier leader
    assert turn(database, run_id) == []
    run = LabRunRead.of(read(database, run_id))
    assert (run.state, run.verdict, run.num_done) == ("succeeded", "holds", 1)
    assert run.finished_at is not None
    assert run.finding is not None
    assert run.finding.estimates[0].value == pytest.approx(0.102)
    assert run.finding.as_csv().splitlines()[0] == "start,x,y,k,gradient,displacement,chosen,alpha"
    assert turn(database, run_id) == []


def test_study__that_has_ended_is_evidence(database: Database) -> None:
    run_id = begin(database, figure="4")
    turn(database, run_id)
    study_id = read(database, run_id).work["frequencies"]["id"]
    runner = studies.HandRunner.start(database, study_id)
    for config, every in enumerate((5, 22, "epoch")):
        for seed in range(3):
            runner.run({"optimizer.alpha_every": every}, 0.8 + 0.0001 * seed * config, config=config, seed=seed)
    runner.end()
    turn(database, run_id)
    run = LabRunRead.of(read(database, run_id))
    assert (run.state, run.verdict) == ("succeeded", "holds")


def test_job__that_ends_badly_ends_the_run_until_it_is_resumed(database: Database) -> None:
    run_id = begin(database)
    turn(database, run_id)
    job_id = read(database, run_id).work["small-1"]["id"]
    with database.unit_of_work() as session:
        job_verbs.cancel(session, job_id, actor=jobs.ALICE)
    turn(database, run_id)
    run = read(database, run_id)
    assert (run.state, run.failure) == ("failed", f"stage small-1: job {job_id} cancelled")
    with database.unit_of_work() as session:
        verbs.resume(session, run_id, actor=jobs.ALICE)
    turn(database, run_id)
    assert read(database, run_id).state == "running"
    assert jobs.state(database, job_id) == "queued"
    assert len(keys(database)) == 9


def test_cancel__takes_the_jobs_with_it(database: Database) -> None:
    run_id = begin(database)
    turn(database, run_id)
    with database.unit_of_work() as session:
        verbs.cancel(session, run_id, actor=jobs.ALICE)
    assert {jobs.state(database, done["id"]) for done in read(database, run_id).work.values()} == {"cancelled"}
    assert read(database, run_id).state == "cancelled"
    for verb in (verbs.cancel, verbs.resume):
        with database.unit_of_work() as session, pytest.raises(InvalidTransitionError, match="is cancelled"):
            verb(session, run_id, actor=jobs.ALICE)


def test_submit__with_the_same_key_returns_the_first_run(database: Database) -> None:
    first = begin(database, key="k")
    assert begin(database, key="k") == first
    with pytest.raises(ConflictError, match=f"belongs to lab run {first}"):
        begin(database, key="k", seeds=5)


def test_preview__counts_what_the_run_takes(database: Database) -> None:
    with database.read() as session:
        found = service.preview(session, LabSpec(figure="3b", scale="digits"), team="red")
    # 3 radii and 3 seeds for two methods, SGD without radii, and as many fresh seeds for each of the three.
    assert found.num_trials == 3 * 3 * 2 + 3 + 3 * 3
    assert found.grad_evals is not None
    # 35 steps an epoch, since 300 examples are held out, and 10 epochs of two passes; SGD has twice as many epochs.
    assert found.grad_evals == found.num_trials * 35 * 10 * 2
    with database.read() as session:
        paper = service.preview(session, LabSpec(figure="3b", scale="paper"), team="red")
    assert paper.gpu_hours is None  # no comparable run
    assert [stage.num_trials for stage in paper.stages] == [6 * 3 * 2 + 3 + 9, 21, 21, 21]


def test_unknown_run__is_not_found(database: Database) -> None:
    with database.read() as session, pytest.raises(NotFoundError, match="no lab run nope"):
        service.get(session, "nope")


def test_plane__is_queued_when_the_job_that_it_is_of_has_succeeded(database: Database) -> None:
    run_id = begin(database, figure="1a")
    turn(database, run_id)
    assert keys(database) == [f"lab/{run_id}/run-{seed}" for seed in range(3)]
    trained = read(database, run_id).work["run-1"]["id"]
    lease = jobs.claim(database, trained)
    with database.unit_of_work() as session:
        queue.complete(session, lease, summary={})
    turn(database, run_id)
    turn(database, run_id)
    assert keys(database) == [f"lab/{run_id}/{name}" for name in ("plane-1", "run-0", "run-1", "run-2")]
    looking = jobs.read(database, read(database, run_id).work["plane-1"]["id"])
    assert (looking.kind, looking.spec["plane"]["job"], looking.spec["dataset"]["name"]) == (
        "plane",
        trained,
        "synthetic",
    )


@pytest.mark.parametrize("of", ["nothing", "blue", "unsaved"])
def test_job__that_can_t_be_looked_at_is_named(database: Database, of: str) -> None:
    job_id = {"nothing": "abc", "blue": "", "unsaved": ""}[of] or jobs.submit(
        database, actor=jobs.BOB if of == "blue" else jobs.ALICE
    )
    why = "no checkpoint" if of == "unsaved" else "jobs of team red that train"
    with pytest.raises(InvalidRequestError, match=why) as caught:
        begin(database, figure="1a", job=job_id, base={})
    assert caught.value.field == "job"
