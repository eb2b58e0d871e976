"""Code comes in once by its content, belongs to the team that sent it, and goes with everything made of a job."""

from pathlib import Path

import pytest

from tests.api.token_service import make_callers
from tests.support.bundles import packed
from xsam.api.client import Client
from xsam.api.client.errors import ApiError
from xsam.services.db.session import Database
from xsam.services.settings import ApiSettings, CodeSettings, Settings

CODE = packed({"acme/task.py": "class Defects: ..."})
TASK = {"task": {"target": "acme.task:Defects"}, "best": "f1:max"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "code" / "acme").mkdir(parents=True)
    (tmp_path / "code" / "acme" / "task.py").write_text("class Defects: ...")
    return tmp_path / "code"


def test_submit__with_a_folder_names_its_content_and_sends_it_once(client: Client, folder: Path) -> None:
    spec, (first,) = client.bundles.resolve({"code": ".", **TASK}, folder)
    assert (first.bundle.id, first.is_new, first.bundle.num_files) == (CODE.id, True, 1)
    again, (second,) = client.bundles.resolve({"code": {"path": ".", "root": "acme"}, **TASK}, folder)
    assert not second.is_new
    assert again["code"] == {"bundle": CODE.id, "root": "acme"}
    job = client.submit(spec)
    assert job.spec.code is not None
    assert job.spec.code.bundle == CODE.id
    assert client.clone(job.id, {"epochs": 3}).spec.code == job.spec.code
    card = client.model_card(job.id)
    assert card.bundle == client.bundles.get(CODE.id)


def test_study__carries_the_code_of_its_base(client: Client, folder: Path) -> None:
    given = {"preset": "rho", "base": {"code": ".", **TASK}}
    spec, _ = client.bundles.resolve(given, folder)
    study = client.studies.submit(spec)
    assert study.spec.base.code is not None
    assert study.spec.objective.metric == "f1"


def test_submit__of_code_that_nobody_sent_names_the_field(client: Client) -> None:
    with pytest.raises(ApiError, match="has not uploaded") as caught:
        client.submit({"code": {"bundle": CODE.id}, **TASK})
    assert caught.value.fields[0].field == "code.bundle"


def test_upload__of_other_content_than_it_is_named_is_refused(client: Client) -> None:
    with pytest.raises(ApiError, match="the content is bundle"):
        client._http.send("PUT", "/v1/bundles/sha256:" + 64 * "0", content=CODE.packed)


class TestTeams:
    """A service with tokens."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        api, code = ApiSettings(auth="token"), CodeSettings(upload="on")
        return settings.model_copy(update={"api": api, "code": code})

    def test_bundle__is_the_teams_own(self, url: str, database: Database, folder: Path) -> None:
        callers = make_callers(database)
        ann, sam = (Client(url, token=callers.valid[name]) for name in ("member", "stranger"))
        with ann, sam:
            job = ann.submit(ann.bundles.resolve({"code": ".", **TASK}, folder)[0])
            for refused in (lambda: sam.bundles.get(CODE.id), lambda: sam.submit(job.spec)):
                with pytest.raises(ApiError):
                    refused()
            assert sam.bundles.upload(folder).is_new, "it does not tell that another team has it"
            assert sam.submit(job.spec).team == "blue"


class TestOff:
    """A team service as it comes."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"api": ApiSettings(auth="token")})

    def test_code__is_refused_by_the_setting_that_allows_it(self, url: str, database: Database, folder: Path) -> None:
        callers = make_callers(database)
        with Client(url, token=callers.valid["member"]) as ann:
            with pytest.raises(ApiError, match="XSAM_CODE__UPLOAD=on"):
                ann.bundles.upload(folder)
            with pytest.raises(ApiError, match="XSAM_CODE__UPLOAD=on"):
                ann.submit({"code": {"bundle": CODE.id}, **TASK})
