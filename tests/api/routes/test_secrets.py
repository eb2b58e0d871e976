"""Secrets over REST: set by admins, named by jobs, and in no answer."""

from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tests.support.callers import SECRET_KEY
from xsam.api.client import Client
from xsam.api.client.errors import ApiError
from xsam.services.settings import SecretSettings, Settings

VALUE = "wandb-0123456789"


@pytest.fixture
def key() -> str | None:
    return SECRET_KEY


@pytest.fixture
def settings(settings: Settings, key: str | None) -> Settings:
    secrets = SecretSettings(key=None if key is None else SecretStr(key))
    return settings.model_copy(update={"secrets": secrets})


@pytest.fixture
def team(client: Client) -> str:
    return client.admin.create_team("default").name


def test_secret__is_set_named_by_a_job_and_in_no_answer(http: httpx.Client, client: Client, team: str) -> None:
    path = f"/v1/teams/{team}/secrets"
    answers = [http.put(f"{path}/WANDB_API_KEY", json={"value": VALUE})]
    job = http.post("/v1/jobs", json={"secrets": ["WANDB_API_KEY"]})
    answers += [http.get(path), job, http.get(f"/v1/jobs/{job.json()['id']}"), http.get("/v1/audit")]
    answers += [http.post(f"/v1/jobs/{job.json()['id']}/clone", json={}), http.get(f"/v1/teams/{team}/leftovers")]
    assert [one.status_code for one in answers] == [200, 200, 201, 200, 200, 201, 200]
    assert [one.text for one in answers if VALUE in one.text] == []
    assert set(answers[0].json()) == {"team", "name", "set_by", "set_at"}
    assert answers[-2].json()["spec"]["secrets"] == ["WANDB_API_KEY"]
    assert [one.name for one in client.admin.secrets(team)] == ["WANDB_API_KEY"]
    client.admin.delete_secret(team, "WANDB_API_KEY")
    assert list(client.admin.secrets(team)) == []


def test_submit__names_field_value_and_what_is_allowed(client: Client, team: str) -> None:
    client.admin.put_secret(team, "HF_TOKEN", VALUE)
    with pytest.raises(ApiError) as caught:
        client.submit({"secrets": ["WANDB_API_KEY"]})
    assert [field.field for field in caught.value.fields] == ["secrets.0"]
    assert "'WANDB_API_KEY', which team default does not have; allowed are: HF_TOKEN" in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        {"value": "short-1"},
        {"value": f"{VALUE}\n{VALUE}"},
        {"value": VALUE, "other": VALUE},
        {"value": [VALUE]},
        {"text": VALUE},
        VALUE,
        [VALUE],
    ],
)
def test_refused_value__is_not_quoted(http: httpx.Client, team: str, body: Any) -> None:
    refused = http.put(f"/v1/teams/{team}/secrets/HF_TOKEN", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed")
    assert VALUE not in refused.text
    assert "short-1" not in refused.text


def test_body_that_is_no_json__is_not_quoted(http: httpx.Client, team: str) -> None:
    for content, kind in (
        (VALUE, "application/json"),
        (f'{{"value": "{VALUE}', "application/json"),
        (VALUE, "text/plain"),
    ):
        headers = {"Content-Type": kind}
        refused = http.put(f"/v1/teams/{team}/secrets/HF_TOKEN", content=content, headers=headers)
        assert refused.is_client_error
        assert VALUE not in refused.text


@pytest.mark.parametrize("name", ["PATH", "LD_PRELOAD", "lower", "CUDA_VISIBLE_DEVICES"])
def test_name__that_no_job_could_name_is_refused(client: Client, team: str, name: str) -> None:
    with pytest.raises(ApiError) as caught:
        client.admin.put_secret(team, name, VALUE)
    assert (caught.value.code, [field.field for field in caught.value.fields]) == ("validation_failed", ["secret"])


@pytest.mark.parametrize("key", [None])
def test_without_a_key__the_answer_says_what_to_set(client: Client, team: str) -> None:
    with pytest.raises(ApiError, match="the operator has not set XSAM_SECRETS__KEY") as caught:
        client.admin.put_secret(team, "HF_TOKEN", VALUE)
    assert caught.value.code == "forbidden"
    assert list(client.admin.secrets(team)) == []
