"""The OpenAPI document against a service with tokens: all of Schemathesis' checks, as an admin and as a member."""

from collections.abc import Mapping

import httpx
import pytest
import schemathesis
from hypothesis import given
from pydantic import SecretStr
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, positive_data_acceptance

from tests.api.generated import can_be_wrong, few
from tests.api.token_service import Callers
from tests.support import bundles, studies
from tests.support.callers import SECRET_KEY, make_secret, make_token, make_webhook
from tests.support.jobs import submit
from tests.support.row_runner import RowRunner
from xsam.services.checks import service as checks
from xsam.services.cluster.models import Dispatcher
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.lab import service as lab
from xsam.services.lab.spec import LabSpec
from xsam.services.settings import ApiSettings, SecretSettings, Settings
from xsam.services.specs.job import JobSpec
from xsam.services.teams.roles import Actor

# That a body fits the schema does not make it acceptable: batch size and workers must fit each other, for example.
_CHECKS = [check for check in CHECKS.get_all() if check is not positive_data_acceptance]
_EXAMPLES = 2


@pytest.fixture
def settings(settings: Settings) -> Settings:
    api = ApiSettings(auth="token", rate_limit_per_s=100_000, rate_limit_burst=100_000)
    return settings.model_copy(update={"api": api, "secrets": SecretSettings(key=SecretStr(SECRET_KEY))})


@pytest.fixture
def names(
    database: Database, settings: Settings, small_cluster: None, callers: Callers, runner: RowRunner
) -> Mapping[str, str]:
    """Things that exist, by the placeholder that names them in a path."""
    ann = Actor("ann", "red")
    with database.unit_of_work() as session:
        session.get_one(Dispatcher, "node-1:4711").seen_at = db_now(3600)  # alive until the test ends
    job_id = submit(database, actor=ann, epochs=2)
    runner.run(job_id)  # it has ended: its streams end too
    with database.unit_of_work() as session:
        check_id = checks.submit(session, JobSpec(), actor=ann).id
        run_id = lab.submit(session, LabSpec(figure="1b"), actor=ann)[0].id
    return {
        "job_id": job_id,
        "study_id": studies.submit(database, actor=ann),
        "bundle_id": bundles.add(database, settings.artifact_root, bundles.packed({"task.py": ""}), ann),
        "check_id": check_id,
        "run_id": run_id,
        "team": "red",
        "user": "vic",
        "token_id": make_token(database, "ann", "red")[0],
        "webhook_id": make_webhook(database, "red"),
        "secret": make_secret(database, "red"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["good", "bad"])
@pytest.mark.parametrize("caller", ["admin", "member"])
def test_document__holds_for_every_caller(
    url: str, callers: Callers, names: Mapping[str, str], caller: str, mode: GenerationMode
) -> None:
    document = httpx.get(f"{url}/openapi.json", timeout=300).json()
    schema = schemathesis.openapi.from_dict(document)
    tested = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not can_be_wrong(operation):
            continue

        @given(case=operation.as_strategy(generation_mode=mode))
        @few(_EXAMPLES)
        def check(case: schemathesis.Case) -> None:
            if mode is GenerationMode.POSITIVE:
                case.path_parameters |= {name: names[name] for name in case.path_parameters if name in names}
            case.call_and_validate(base_url=url, checks=_CHECKS, headers=callers.headers(caller), timeout=300)

        check()
        tested.add(operation.label)
    assert {"POST /v1/jobs", "PATCH /v1/teams/{team}", "POST /v1/tokens", "GET /v1/audit"} <= tested
