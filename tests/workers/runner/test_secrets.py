"""An attempt's secrets: whose they are, how it ends where there are none, and what of them is told."""

from pathlib import Path

import pytest

from tests.support import jobs
from tests.support.callers import ROOT, SECRET_KEY, make_secret, make_team
from xsam.services.db.session import Database
from xsam.services.jobs.states import FailureKind
from xsam.services.secrets import verbs
from xsam.services.specs.job import JobSpec
from xsam.workers.messages import Assignment, RankContext, RankResult
from xsam.workers.runner.rank_group import GroupEnding
from xsam.workers.runner.secrets import NoSecretsError, values_for, without

VALUE = "wandb-0123456789"
NAMES = ("WANDB_API_KEY",)


@pytest.fixture
def job_id(database: Database) -> str:
    for team in ("red", "blue"):
        make_team(database, team)
    make_secret(database, "red", value=VALUE)
    make_secret(database, "blue", value="the-blue-one")
    return jobs.submit(database, secrets=list(NAMES))


def _ending(database: Database, job_id: str, *keys: str) -> GroupEnding:
    with pytest.raises(NoSecretsError) as caught:
        values_for(database, job_id, NAMES, keys)
    return caught.value.ending


def test_values__are_those_of_the_jobs_own_team(database: Database, job_id: str) -> None:
    assert values_for(database, job_id, NAMES, [SECRET_KEY]) == {"WANDB_API_KEY": VALUE}
    assert values_for(database, job_id, (), []) == {}


def test_deleted_secret__is_the_jobs_own_failure_and_its_ranks_are_untouched(database: Database, job_id: str) -> None:
    with database.unit_of_work() as session:
        verbs.remove(session, ROOT, "red", "WANDB_API_KEY")
    ending = _ending(database, job_id, SECRET_KEY)
    assert ending.is_clean
    assert ending.result is not None
    assert ending.result.failure_kind is FailureKind.USER
    assert ending.result.message.startswith("secrets.0 is 'WANDB_API_KEY', which team red does not have; allowed are")


@pytest.mark.parametrize(
    ("keys", "said"), [((), "has not set XSAM_SECRETS__KEY"), (("B" * 43 + "=",), "no key of XSAM_SECRETS__KEY opens")]
)
def test_secret_that_no_key_opens__is_the_services_failure(
    database: Database, job_id: str, keys: tuple[str, ...], said: str
) -> None:
    ending = _ending(database, job_id, *keys)
    assert ending.result is not None
    assert (ending.result.failure_kind, said in ending.result.message) == (FailureKind.INFRASTRUCTURE, True)


def test_ending__tells_nothing_of_a_value_also_of_a_rank_that_died() -> None:
    died = RankResult.died(0, RuntimeError(f"first line\nno access with {VALUE}"))
    told = without(GroupEnding(died, is_clean=False), {"WANDB_API_KEY": VALUE}).result
    assert told is not None
    assert told.message == "rank 0 died: no access with ***"
    assert VALUE not in repr(told)
    ended = GroupEnding(None, is_clean=True, not_placed="full")
    assert without(ended, {"WANDB_API_KEY": VALUE}) is ended


def test_assignment__shows_no_value(tmp_path: Path) -> None:
    context = RankContext(0, 1, "cpu", None, tmp_path)
    spec = JobSpec(secrets=NAMES)
    given = Assignment("a", 1, spec, context, tmp_path, secrets={"WANDB_API_KEY": VALUE})
    assert "WANDB_API_KEY" in repr(given)
    assert VALUE not in repr(given)
