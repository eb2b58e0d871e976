"""A team's secrets on its page: set and deleted by its admins, and never shown."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from tests.api.dashboard.conftest import OWN, form_token
from tests.api.dashboard.reading import read
from tests.support.callers import SECRET_KEY
from xsam.services.settings import SecretSettings, Settings

PATH = "/admin/teams/red/secrets"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"secrets": SecretSettings(key=SecretStr(SECRET_KEY))})


def test_team__sets_and_deletes_its_secrets_and_the_page_never_shows_a_value(browser: TestClient) -> None:
    browser.put("/v1/teams/red", json={})
    fields = form_token(read(browser.get("/admin/teams/red").text).one("form", action=PATH))
    form = {"form_token": fields, "name": "HF_TOKEN", "value": "hf_0123456789"}
    for wrong, said in (({"value": "hf_0"}, "value must have at least 8"), ({"name": "PATH"}, "reserved names")):
        refused = browser.post(PATH, data={**form, **wrong}, headers=OWN)
        assert (refused.status_code, said in refused.text) == (422, True), refused.text
        assert "hf_0" not in refused.text
    assert browser.post(PATH, data=form, headers=OWN).status_code == 303
    shown = browser.get("/admin/teams/red").text
    assert "hf_0" not in shown
    (delete,) = read(shown).all("form", action=f"{PATH}/HF_TOKEN/delete")
    browser.post(delete.attributes["action"], data={"form_token": form_token(delete)}, headers=OWN)
    assert browser.get("/v1/teams/red/secrets").json()["items"] == []


def test_form__is_for_the_teams_admins(guarded: TestClient, sign_in: Callable[[str], TestClient]) -> None:
    page = read(sign_in("member").get("/admin/teams/red").text)
    assert not page.all("form", action=PATH)
    fields = {"form_token": form_token(page), "name": "HF_TOKEN", "value": "hf_0123456789"}
    assert guarded.post(PATH, data=fields, headers=OWN).status_code == 403
    assert read(sign_in("lead").get("/admin/teams/red").text).all("form", action=PATH)
