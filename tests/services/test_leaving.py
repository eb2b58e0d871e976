import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path

import pytest

from tests.support import bundles, jobs, studies
from tests.support.callers import ROOT, make_member, make_secret, make_team, make_token
from tests.support.studies import HandRunner
from xsam.services import leaving
from xsam.services.db.session import Database
from xsam.services.errors import ConflictError, ForbiddenError, InfeasibleError, NotFoundError
from xsam.services.jobs import service, verbs
from xsam.services.jobs.states import JobState, Wish
from xsam.services.reports import leftovers
from xsam.services.reports.leftovers import LeftoversRead
from xsam.services.secrets import service as secrets
from xsam.services.specs.job import JobSpec
from xsam.services.studies import verbs as study_verbs
from xsam.services.teams.roles import Actor, Principal, Role
from xsam.services.teams.schemas import DisabledRead, DisableWrite

ALICE = Actor("alice", "red")
BOB = Actor("bob", "red")
OTHER = Actor("alice", "blue")
LEAD = Principal("lea", "red", role=Role.ADMIN)


@pytest.fixture(autouse=True)
def _teams(database: Database) -> None:
    for team in ("red", "blue"):
        make_team(database, team)
        make_member(database, "alice", team, Role.MEMBER)


def _disable_team(database: Database, *, cancel_jobs: bool) -> DisabledRead:
    with database.unit_of_work() as session:
        return leaving.disable_team(session, ROOT, "red", DisableWrite(cancel_jobs=cancel_jobs))


def _of_team(database: Database) -> LeftoversRead:
    with database.read() as session:
        return leftovers.of_team(session, ROOT, "red")


def _delete_team(database: Database) -> None:
    with database.unit_of_work() as session:
        leaving.delete_team(session, ROOT, "red")


def test_leftovers__say_what_ends_and_what_stays(database: Database, tmp_path: Path) -> None:
    make_token(database, "alice", "red")
    make_token(database, "alice", "blue")
    jobs.submit(database, actor=ALICE)
    running = jobs.submit(database, actor=BOB)
    jobs.claim(database, running)
    jobs.submit(database, actor=OTHER)
    ended = jobs.submit(database, actor=ALICE)
    with database.unit_of_work() as session:
        verbs.cancel(session, ended, actor=ALICE)
    studies.submit(database, actor=ALICE)
    packed = bundles.packed({"train.py": ""})
    bundles.add(database, tmp_path, packed, ALICE)
    has = _of_team(database)
    assert (has.num_memberships, has.num_tokens, has.num_sessions) == (1, 1, 0)
    assert (has.num_running_jobs, has.num_queued_jobs, has.num_paused_jobs, has.num_ended_jobs) == (1, 1, 0, 1)
    assert (has.num_live_studies, has.num_ended_studies) == (1, 0)
    assert (has.num_bundles, has.bundle_bytes) == (1, len(packed.packed))
    assert has.num_secrets == 0
    with database.read() as session:
        has = leftovers.of_user(session, ROOT, "alice")
    assert (has.num_memberships, has.num_tokens, has.num_queued_jobs, has.num_running_jobs) == (2, 2, 2, 0)
    assert (has.num_bundles, has.num_live_studies) == (1, 1)


def test_delete_team__takes_its_secrets_along(database: Database) -> None:
    for team, name in (("red", "HF_TOKEN"), ("red", "WANDB_API_KEY"), ("blue", "HF_TOKEN")):
        make_secret(database, team, name)
    assert _of_team(database).num_secrets == 2
    with database.read() as session:
        assert leftovers.of_user(session, ROOT, "alice").num_secrets == 0
    _disable_team(database, cancel_jobs=False)
    assert _of_team(database).num_secrets == 2, "what still runs may be queued again"
    _delete_team(database)
    assert _of_team(database).num_secrets == 0
    with database.read() as session:
        assert secrets.number_of(session, "blue") == 1


def test_leftovers__are_for_admins_of_the_service(database: Database) -> None:
    with database.read() as session:
        for read in (leftovers.of_team, leftovers.of_user):
            with pytest.raises(ForbiddenError):
                read(session, LEAD, "red")
            with pytest.raises(NotFoundError):
                read(session, ROOT, "nobody")


def test_disable_team__leaves_jobs_alone_unless_told(database: Database) -> None:
    queued, running = jobs.submit(database, actor=ALICE), jobs.submit(database, actor=ALICE)
    jobs.claim(database, running)
    assert _disable_team(database, cancel_jobs=False).num_cancelled == 0
    assert (jobs.state(database, queued), jobs.read(database, running).wish) == (JobState.QUEUED, None)


def test_disable_team__cancels_its_jobs_and_studies_where_told(database: Database) -> None:
    queued, running, others = (jobs.submit(database, actor=actor) for actor in (ALICE, BOB, OTHER))
    jobs.claim(database, running)
    study_id = studies.submit(database, actor=ALICE)
    done = _disable_team(database, cancel_jobs=True)
    assert (done.num_cancelled, done.has_more) == (3, False)
    assert (jobs.state(database, queued), jobs.read(database, running).wish) == (JobState.CANCELLED, Wish.CANCEL)
    assert studies.read(database, study_id)[0].state == JobState.CANCELLED
    assert jobs.state(database, others) == JobState.QUEUED
    assert _disable_team(database, cancel_jobs=True).num_cancelled == 0


def test_disable_team__cancels_so_many_at_a_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "MAX_JOBS", 2)
    for _ in range(3):
        jobs.submit(database, actor=ALICE)
    told = [_disable_team(database, cancel_jobs=True) for _ in range(2)]
    assert [(one.num_cancelled, one.has_more) for one in told] == [(2, True), (1, False)]


def test_disable_user__cancels_their_jobs_in_all_teams(database: Database) -> None:
    mine, bobs, elsewhere = (jobs.submit(database, actor=actor) for actor in (ALICE, BOB, OTHER))
    with database.unit_of_work() as session:
        assert leaving.disable_user(session, ROOT, "alice", DisableWrite(cancel_jobs=True)).num_cancelled == 2
    states = [jobs.state(database, job_id) for job_id in (mine, bobs, elsewhere)]
    assert states == [JobState.CANCELLED, JobState.QUEUED, JobState.CANCELLED]


def test_disabled_team__takes_no_new_work_in_any_way(database: Database) -> None:
    job_id = jobs.submit(database, actor=ALICE)
    runner = HandRunner.start(database, studies.submit(database, actor=ALICE))
    with database.unit_of_work() as session:
        verbs.cancel(session, job_id, actor=ALICE)
    _disable_team(database, cancel_jobs=False)
    runner.run({"optimizer.rho": 0.1}, 0.5)  # what it had goes on
    ended = studies.submit(database, actor=OTHER)
    jobs.set_columns(database, ended, state=JobState.SUCCEEDED, team="red")
    refused = pytest.raises(InfeasibleError, match="team red is disabled")
    with refused:
        jobs.submit(database, actor=ALICE)
    with refused:
        studies.submit(database, actor=ALICE)
    with refused, database.unit_of_work() as session:
        verbs.retry(session, job_id, actor=ROOT)
    with refused, database.unit_of_work() as session:
        study_verbs.extend(session, ended, actor=ROOT, num_trials=1)
    with database.unit_of_work() as session:
        leaving.enable_team(session, ROOT, "red")
    jobs.submit(database, actor=ALICE)


def test_delete_team__is_refused_while_it_has_jobs_and_keeps_history_after(database: Database) -> None:
    job_id = jobs.submit(database, actor=ALICE)
    with pytest.raises(ConflictError, match="team red has 1 jobs that have not ended"):
        _delete_team(database)
    assert _of_team(database).disabled_at is None
    with database.unit_of_work() as session:
        verbs.cancel(session, job_id, actor=ALICE)
    _delete_team(database)
    has = _of_team(database)
    assert has.deleted_at is not None
    assert (has.num_memberships, has.num_ended_jobs) == (0, 1)
    assert jobs.read(database, job_id).team == "red"


def test_delete_user__is_refused_while_they_have_jobs(database: Database) -> None:
    job_id = jobs.submit(database, actor=ALICE)
    with pytest.raises(ConflictError, match="user alice has 1 jobs"), database.unit_of_work() as session:
        leaving.delete_user(session, ROOT, "alice")
    with database.unit_of_work() as session:
        verbs.cancel(session, job_id, actor=ALICE)
        leaving.delete_user(session, ROOT, "alice")
        assert leftovers.of_user(session, ROOT, "alice").num_ended_jobs == 1


def test_delete_team__waits_for_a_submit_that_is_under_way(database: Database) -> None:
    is_submitted, may_commit = threading.Event(), threading.Event()

    def submit_slowly() -> None:
        with database.unit_of_work() as session:
            service.submit(session, JobSpec(), actor=ALICE)
            is_submitted.set()
            assert may_commit.wait(60)

    with ThreadPoolExecutor(2) as threads:
        submitted = threads.submit(submit_slowly)
        assert is_submitted.wait(60)
        deleted = threads.submit(_delete_team, database)
        with pytest.raises(NotYet):
            deleted.result(0.2)
        may_commit.set()
        submitted.result(60)
        with pytest.raises(ConflictError, match="1 jobs that have not ended"):
            deleted.result(60)
