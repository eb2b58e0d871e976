"""Secrets of teams on both databases: who may, what is kept, and whose jobs can have them."""

from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import select

from tests.support import jobs, studies
from tests.support.callers import ROOT, SECRET_KEY, make_secret, make_team
from tests.support.jobs import ALICE, BOB
from xsam.services.checks import service as checks
from xsam.services.db.session import Database
from xsam.services.errors import ConflictError, ForbiddenError, InvalidRequestError, NotFoundError
from xsam.services.jobs import queue
from xsam.services.jobs import verbs as job_verbs
from xsam.services.jobs.states import FailureKind
from xsam.services.secrets import service, verbs
from xsam.services.secrets.models import Secret
from xsam.services.secrets.schemas import SecretWrite
from xsam.services.specs.job import JobSpec
from xsam.services.teams.models import AuditEvent
from xsam.services.teams.roles import Principal, Role

VALUE = "wandb-0123456789"
LEAD = Principal("lea", "red", role=Role.ADMIN)
MEMBER = Principal("ann", "red", role=Role.MEMBER)
STRANGER = Principal("sam", "blue", role=Role.ADMIN)
WANDB = ["WANDB_API_KEY"]


@pytest.fixture(autouse=True)
def _teams(database: Database) -> None:
    for team in ("red", "blue"):
        make_team(database, team)


def _put(database: Database, principal: Principal, name: str = "WANDB_API_KEY", value: str = VALUE) -> Secret:
    with database.unit_of_work() as session:
        return verbs.put(session, principal, "red", name, SecretWrite(value=value), keys=(SECRET_KEY,))


def _values(database: Database, team: str, *names: str) -> dict[str, str]:
    with database.read() as session:
        return dict(service.values(session, names, team=team, keys=(SECRET_KEY,)))


def test_put__keeps_no_value_in_the_clear_and_replaces_the_one_before(database: Database) -> None:
    first = _put(database, LEAD)
    assert (first.name, first.set_by) == ("WANDB_API_KEY", "lea")
    assert _values(database, "red", "WANDB_API_KEY") == {"WANDB_API_KEY": VALUE}
    second = _put(database, ROOT, value="another-value")
    assert (second.set_by, second.set_at > first.set_at) == ("root", True)
    assert _values(database, "red", "WANDB_API_KEY") == {"WANDB_API_KEY": "another-value"}
    with database.read() as session:
        kept = session.execute(select(Secret.__table__)).all()
        told = session.scalars(select(AuditEvent).where(AuditEvent.action == "secret_set")).all()
        assert len(kept) == 1
        assert [(one.subject, one.team, one.data) for one in told] == 2 * [("WANDB_API_KEY", "red", {})]
    assert VALUE not in repr(kept)


def test_secrets__are_the_affair_of_the_teams_admins_and_their_names_that_of_its_members(database: Database) -> None:
    _put(database, LEAD)
    for principal, refusal in ((MEMBER, ForbiddenError), (STRANGER, NotFoundError)):
        with pytest.raises(refusal):
            _put(database, principal)
        with database.unit_of_work() as session, pytest.raises(refusal):
            verbs.remove(session, principal, "red", "WANDB_API_KEY")
    with database.read() as session:
        assert [one.name for one in service.list_all(session, MEMBER, "red")] == WANDB
        with pytest.raises(NotFoundError):
            service.list_all(session, STRANGER, "red")


def test_put__is_refused_without_a_key_and_beyond_the_limit(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.unit_of_work() as session, pytest.raises(ForbiddenError, match="XSAM_SECRETS__KEY"):
        verbs.put(session, LEAD, "red", "HF_TOKEN", SecretWrite(value=VALUE), keys=())
    monkeypatch.setattr(verbs, "MAX_SECRETS", 1)
    _put(database, LEAD)
    _put(database, LEAD, value="another-value")
    with pytest.raises(ConflictError, match="allowed are at most 1"):
        _put(database, LEAD, "HF_TOKEN")


@pytest.mark.parametrize("value", ["1234567", "x" * 4097, "two\nlines-of-it", " leading", "trailing ", "pässword", ""])
def test_value__is_one_line_that_logs_can_be_rid_of(value: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SecretWrite(value=value)
    assert not value or repr(value)[1:6] not in str(caught.value), "errors end up in logs"


def test_value__is_in_no_repr() -> None:
    assert VALUE not in repr(SecretWrite(value=VALUE))


def test_remove__says_what_is_not_there(database: Database) -> None:
    _put(database, LEAD)
    with database.unit_of_work() as session:
        verbs.remove(session, LEAD, "red", "WANDB_API_KEY")
    with database.unit_of_work() as session, pytest.raises(NotFoundError, match="team red has no secret WANDB_API_KEY"):
        verbs.remove(session, LEAD, "red", "WANDB_API_KEY")


def test_submit__refuses_a_name_that_the_team_does_not_have(database: Database) -> None:
    with pytest.raises(InvalidRequestError, match="none yet; the team's admins set them") as caught:
        jobs.submit(database, secrets=WANDB)
    make_secret(database, "red", "HF_TOKEN")
    make_secret(database, "blue")
    with pytest.raises(InvalidRequestError) as caught:
        jobs.submit(database, secrets=["HF_TOKEN", *WANDB])
    assert caught.value.message == ("secrets.1 is 'WANDB_API_KEY', which team red does not have; allowed are: HF_TOKEN")
    assert caught.value.field == "secrets.1"
    assert jobs.read(database, jobs.submit(database, secrets=["HF_TOKEN"])).spec["secrets"] == ["HF_TOKEN"]
    with pytest.raises(InvalidRequestError, match=r"^secrets.0"), database.unit_of_work() as session:
        checks.submit(session, JobSpec(secrets=WANDB), actor=ALICE)
    with pytest.raises(InvalidRequestError) as caught:
        studies.submit(database, actor=ALICE, base={**studies.SMALL["base"], "secrets": WANDB})
    assert caught.value.field == "base.secrets.0"


def test_clone__under_another_team_gets_nothing_of_the_first(database: Database) -> None:
    make_secret(database, "red")
    job_id = jobs.submit(database, secrets=WANDB)

    def clone(actor: Any) -> str:
        with database.unit_of_work() as session:
            return job_verbs.clone(session, job_id, {}, actor=actor)[0].id

    assert jobs.read(database, clone(ALICE)).spec["secrets"] == WANDB
    with pytest.raises(InvalidRequestError, match="which team blue does not have"):
        clone(BOB)
    make_secret(database, "blue", value="the-blue-one")
    assert jobs.read(database, clone(BOB)).team == "blue"
    assert _values(database, "blue", *WANDB) == {"WANDB_API_KEY": "the-blue-one"}


def test_retry__is_refused_once_the_secret_is_gone(database: Database) -> None:
    make_secret(database, "red")
    lease = jobs.submit_and_claim(database, secrets=WANDB)
    with database.unit_of_work() as session:
        queue.fail(session, lease, kind=FailureKind.USER, message="boom")
        verbs.remove(session, ROOT, "red", "WANDB_API_KEY")
    with pytest.raises(InvalidRequestError, match="which team red does not have"), database.unit_of_work() as session:
        job_verbs.retry(session, lease.job_id, actor=ALICE)


def test_values__are_those_of_the_team_and_all_or_none(database: Database) -> None:
    make_secret(database, "red")
    assert _values(database, "red") == {}
    for team, names in (("blue", WANDB), ("red", [*WANDB, "HF_TOKEN"])):
        with pytest.raises(InvalidRequestError, match="does not have"):
            _values(database, team, *names)
