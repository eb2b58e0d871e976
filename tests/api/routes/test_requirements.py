"""Requirements over REST and through the client: lines in, a lock's name in the job and in all that is made of it."""

from pathlib import Path

import pytest

from tests.support.studies import HandRunner
from xsam.api.client import Client
from xsam.api.client.errors import ApiError
from xsam.services.db.session import Database
from xsam.services.errors import InvalidRequestError
from xsam.services.jobs.models import Job
from xsam.services.requirements import lines
from xsam.services.requirements import service as requirements
from xsam.services.settings import CodeSettings, Settings
from xsam.services.specs.job import JobSpec
from xsam.services.studies.space import apply

TEXT = "einops>=0.8\n"
LOCK = f"einops==0.8.1 --hash=sha256:{64 * 'a'}\n"
TASK = {"code": ".", "task": {"target": "acme:Defects"}, "best": "f1:max"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "acme.py").write_text("class Defects: ...")
    (tmp_path / "code" / "requirements.txt").write_text(TEXT)
    return tmp_path / "code"


def answer(client: Client, database: Database, text: str, *, lock: str | None, error: str | None = None) -> None:
    """Lock as the dispatcher does, before anybody waits for it."""
    asked = client._http.send("POST", "/v1/requirements", json={"text": text}).json()
    with database.unit_of_work() as session:
        requirements.answer(session, asked["id"], lock=lock, error=error)


def test_requirements__go_with_the_job_its_clones_its_studies_and_its_card(
    client: Client, database: Database, folder: Path
) -> None:
    answer(client, database, TEXT, lock=LOCK)
    spec, locked = client.requirements.resolve({**TASK, "requirements": "requirements.txt"}, folder)
    assert locked is not None
    assert spec["requirements"] == {"lock": lines.id_of(LOCK)}
    assert client.requirements.resolve({**TASK, "requirements": [TEXT.strip()]}, folder)[0] == spec
    sent, _ = client.bundles.resolve(spec, folder)
    job = client.submit(sent)
    assert job.spec.requirements is not None
    assert job.spec.requirements.lock == locked.lock_id
    assert client.clone(job.id, {"epochs": 3}).spec.requirements == job.spec.requirements
    assert client.model_card(job.id).packages == ["einops==0.8.1"]
    study = client.studies.submit({"preset": "rho", "base": sent})
    assert study.spec.base.requirements == job.spec.requirements


def test_promoted_winner__brings_the_code_and_the_packages_of_its_study(
    client: Client, database: Database, folder: Path
) -> None:
    answer(client, database, TEXT, lock=LOCK)
    locked, _ = client.requirements.resolve({**TASK, "requirements": [TEXT.strip()]}, folder)
    base, _ = client.bundles.resolve(locked, folder)
    space = {"task.options.dim": {"type": "choice", "values": [8, 16]}}
    study = client.studies.submit({"base": base, "space": space, "sampler": {"name": "grid"}})
    runner = HandRunner.start(database, study.id)
    runner.run({"task.options.dim": 16}, 0.5)
    winner = client.studies.promote(study.id, changes={"epochs": 3}).spec
    assert (winner.code, winner.requirements) == (study.spec.base.code, study.spec.base.requirements)
    assert winner.task is not None
    assert winner.task.options == {"dim": 16}


def test_trial_of_a_script__gets_its_arguments_from_the_searched_fields(client: Client, folder: Path) -> None:
    script = {"code": ".", "entrypoint": ["train.py", "--lr", "{config.lr}", "--rho={optimizer.rho}"]}
    base, _ = client.bundles.resolve({**script, "config": {"lr": 0.5}, "best": "f1:max"}, folder)
    space = {"config.lr": {"type": "log_uniform", "low": 0.001, "high": 1.0}}
    study = client.studies.submit({"base": base, "space": space}).spec
    trial = apply(study.base.model_dump(mode="json"), study.space, {"config.lr": 0.01})
    job = JobSpec.model_validate(trial)
    assert job.entrypoint is not None
    assert job.entrypoint.filled(trial) == ["--lr", "0.01", "--rho=0.05"]
    with pytest.raises(ApiError, match=r"config\.rate"):
        client.submit({**base, "entrypoint": ["train.py", "{config.rate}"]})


def test_requirements__that_cannot_be_had_are_told_before_anything_is_queued(
    client: Client, database: Database, folder: Path
) -> None:
    told = "requirements: torch==2.4 conflicts with the service's torch 2.14.1; remove the line"
    (folder / "requirements.txt").write_text("torch==2.4\n")
    asked = client._http.send("POST", "/v1/requirements", json={"text": "torch==2.4\n"}).json()
    with database.unit_of_work() as session:
        assert requirements.take(session, asked["id"])
    with pytest.raises(InvalidRequestError, match="no dispatcher has locked them"):
        client.requirements.lock("torch==2.4\n", wait_s=0.0)
    with database.unit_of_work() as session:
        requirements.answer(session, asked["id"], lock=None, error=told)
    assert client.requirements.get(asked["id"]).error == told


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"requirements": {"lock": "sha256:" + 64 * "0"}}, "give `code: .` as well"),
        ({"requirements": "requirements.txt"}, "requirements"),
    ],
)
def test_submit__of_a_lock_that_is_none_names_the_field(client: Client, spec: dict[str, object], told: str) -> None:
    with pytest.raises(ApiError, match=told) as caught:
        client.submit(spec)
    assert caught.value.fields[0].field.startswith("requirements")


def test_submit__of_a_lock_that_nobody_made_names_the_field(client: Client, folder: Path) -> None:
    sent, _ = client.bundles.resolve({**TASK, "requirements": {"lock": "sha256:" + 64 * "0"}}, folder)
    with pytest.raises(ApiError, match="has not made") as caught:
        client.submit(sent)
    assert caught.value.fields[0].field == "requirements.lock"


def test_uv_lock__beside_the_code_is_read(client: Client, database: Database, folder: Path) -> None:
    needs = 'metadata = { requires-dist = [{ name = "einops", specifier = ">=0.8" }] }'
    text = f'version = 1\n[[package]]\nname = "acme"\nsource = {{ virtual = "." }}\n{needs}\n'
    (folder / "uv.lock").write_text(text)
    answer(client, database, TEXT, lock=LOCK)
    sent, _ = client.requirements.resolve({**TASK, "requirements": "uv.lock"}, folder)
    assert sent["requirements"] == {"lock": lines.id_of(LOCK)}


def test_retry__keeps_the_packages(client: Client, database: Database, folder: Path) -> None:
    answer(client, database, TEXT, lock=LOCK)
    locked, _ = client.requirements.resolve({**TASK, "requirements": [TEXT.strip()]}, folder)
    job = client.submit(client.bundles.resolve(locked, folder)[0])
    client.cancel(job.id)
    again = client.retry(job.id)
    assert again.state == "queued"
    assert again.spec == job.spec
    with database.read() as session:
        claimed = JobSpec.model_validate(session.get_one(Job, job.id).spec)
    assert claimed.requirements is not None
    with database.read() as session:
        assert requirements.lock_of(session, claimed.requirements.lock) == LOCK, "what its ranks install"


class TestLockedOnly:
    """An operator who takes locks alone."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"code": CodeSettings(allow_dependencies="locked")})

    def test_requirements__that_leave_a_version_open_are_refused(self, client: Client) -> None:
        with pytest.raises(ApiError, match=r"einops>=0\.8 is not locked") as caught:
            client.requirements.lock(TEXT)
        assert caught.value.fields[0].field == "requirements"
