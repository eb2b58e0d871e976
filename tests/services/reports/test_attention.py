import pytest
from sqlalchemy import update

from tests.support import jobs, planning, studies
from tests.support.jobs import ALICE, BOB
from xsam.services.cluster.service import NodeSeen
from xsam.services.cluster.traits import NodeTraits
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.jobs import queue
from xsam.services.jobs.models import Job
from xsam.services.reports.attention import attention
from xsam.services.reports.schemas import AttentionRead
from xsam.services.studies import verbs
from xsam.services.teams import service as teams
from xsam.services.teams import tokens
from xsam.services.teams.models import Token
from xsam.services.teams.roles import Principal, Role
from xsam.services.teams.schemas import TeamWrite, TokenCreate

ADMIN = Principal(user="root", team="red", role=Role.ADMIN, is_admin=True)


def _read(database: Database, who: Principal = ADMIN) -> AttentionRead:
    with database.read() as session:
        return attention(session, who, max_silence_s=600)


def test_attention__is_empty_where_nothing_is_the_matter(database: Database) -> None:
    jobs.submit_and_claim(database)
    studies.submit(database)
    assert not _read(database).is_needed


def test_attention__names_jobs_that_run_and_say_nothing(database: Database) -> None:
    silent, fine, other = (jobs.submit_and_claim(database, actor=who).job_id for who in (ALICE, ALICE, BOB))
    for job_id, silence_s in ((silent, 400), (fine, 200), (other, 400)):
        with database.unit_of_work() as session:
            session.execute(update(Job).where(Job.id == job_id).values(reported_at=db_now(-silence_s)))
    found = _read(database)
    assert found.is_needed
    assert [one.id for one in found.stalled] == [silent]


def test_attention__names_paused_studies_until_they_go_on(database: Database) -> None:
    study_id = studies.submit(database, name="mine")
    foreign = studies.submit(database, actor=BOB)
    with database.unit_of_work() as session:
        verbs.pause(session, study_id, actor=ALICE)
        verbs.pause(session, foreign, actor=BOB)
    assert [(one.id, one.name) for one in _read(database).paused] == [(study_id, "mine")]
    with database.unit_of_work() as session:
        verbs.resume(session, study_id, actor=ALICE)
    assert _read(database).paused == []


@pytest.mark.parametrize(
    ("quota", "reached"),
    [
        ({"running_jobs": 1}, [("running_jobs", 1, 1)]),
        ({"cpus": 2, "running_jobs": 2}, [("cpus", 2, 2)]),
        ({"cpus": 2.5, "gpus": 1}, []),
        ({}, []),
    ],
)
def test_attention__says_which_limit_is_reached(
    database: Database, quota: dict[str, float], reached: list[tuple[str, float, float]]
) -> None:
    with database.unit_of_work() as session:
        teams.put_team(session, ADMIN, "red", TeamWrite.model_validate({"quota": quota}))
    jobs.submit_and_claim(database, resources={"cpus_per_worker": 2})
    assert [(one.what, one.limit, one.held) for one in _read(database).reached] == reached


@pytest.mark.parametrize(
    ("quota", "reached"),
    [
        ({"H100": 2}, [("gpus", "h100", 2, 2)]),
        ({"h100": 1.5, "A100": 1}, [("gpus", "a100", 1, 1), ("gpus", "h100", 1.5, 2)]),
        ({"h100": 3, "A100": 0, "T4": 1}, []),
    ],
)
def test_attention__names_the_kind_whose_limit_is_reached_by_where_jobs_are(
    database: Database, quota: dict[str, float], reached: list[tuple[str, str, float, float]]
) -> None:
    kinds = {"node-1": "H100", "node-2": "A100", "node-3": ""}
    planning.report_nodes(
        database, *(NodeSeen(name, name, 8, 4, traits=NodeTraits(kind)) for name, kind in kinds.items())
    )
    asked = {"gpus_per_worker": 1}
    for who, workers, places in (
        (ALICE, 3, ["node-1", "node-1", "node-2"]),
        (ALICE, 1, ["node-3"]),
        (BOB, 1, ["node-1"]),
    ):
        job_id = jobs.submit(database, actor=who, batch_size=60, resources={**asked, "num_workers": workers})
        with database.unit_of_work() as session:
            queue.claim(session, job_id, runner="runner-1", lease_s=60, placement=places)
    jobs.submit(database, resources={**asked, "gpu_kind": "A100"})
    with database.unit_of_work() as session:
        teams.put_team(session, ADMIN, "red", TeamWrite.model_validate({"quota": {"gpus_by_kind": quota}}))
    found = _read(database).reached
    assert [(one.what, one.gpu_kind, one.limit, one.held) for one in found] == reached


def test_attention__speaks_of_a_token_a_week_before_its_end(database: Database) -> None:
    with database.unit_of_work() as session:
        teams.ensure_team(session, "red")
        teams.put_member(session, ADMIN, "red", "root", Role.ADMIN)
        token, _ = tokens.create(session, ADMIN, TokenCreate(expires_in_s=30 * 86_400))
        me = Principal(user="root", team="red", role=Role.ADMIN, is_admin=True, token_id=token.id)
    assert _read(database, me).token_expires_at is None
    with database.unit_of_work() as session:
        session.execute(update(Token).where(Token.id == me.token_id).values(expires_at=db_now(6 * 86_400)))
    assert _read(database, me).token_expires_at is not None
    assert _read(database).token_expires_at is None
