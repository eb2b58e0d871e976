import os
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from tests.support.callers import SECRET_KEY
from xsam.services.settings import (
    ApiSettings,
    CodeSettings,
    DatabaseSettings,
    IsolationSettings,
    RayCluster,
    SecretSettings,
    Settings,
    environment_for,
    get_settings,
)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("XSAM_"):
            monkeypatch.delenv(name)


def test_get_settings__reads_nested_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XSAM_API__PORT", "9000")
    monkeypatch.setenv("XSAM_DISPATCHER__LEASE_S", "7.5")
    monkeypatch.setenv("XSAM_TRAINING__ALLOWED_PACKAGES", '["ours"]')
    settings = get_settings()
    assert (settings.api.port, settings.dispatcher.lease_s, settings.training.allowed_packages) == (
        9000,
        7.5,
        ("ours",),
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API__PORT", "70000"),
        ("DISPATCHER__POLL_S", "0"),
        ("API__PROT", "1"),
        ("DATABASE__POOL_SIZE", "many"),
        ("SCHEDULING__HALF_LIFE_S", "0"),
        ("SCHEDULING__ESTIMATE_SLACK", "0.5"),
        ("SCHEDULING__MIN_RUN_TIME_S", "-1"),
        ("SCHEDULING__PATIENCE", "1"),
    ],
)
def test_get_settings__refuses_wrong_values_and_unknown_names(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"XSAM_{name}", value)
    with pytest.raises(ValidationError):
        get_settings()


def test_settings__lie_in_one_folder_by_default(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    assert settings.database_url == f"sqlite:///{tmp_path / 'xsam.db'}"
    assert {settings.artifact_root.parent, settings.dataset_root.parent} == {tmp_path}


def test_settings__never_show_the_database_password() -> None:
    settings = Settings(database=DatabaseSettings(url=SecretStr("postgresql+psycopg://u:hunter2@h/d")))
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()
    assert "hunter2" in settings.database_url


def test_settings__never_show_a_key_of_secrets() -> None:
    settings = Settings(secrets=SecretSettings(key=SecretStr(f"{SECRET_KEY}, {SECRET_KEY}")))
    assert settings.secrets.keys == (SECRET_KEY, SECRET_KEY)
    assert SECRET_KEY not in repr(settings) + str(settings) + settings.model_dump_json()
    assert Settings().secrets.keys == ()


def test_variable__that_is_empty_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XSAM_SECRETS__KEY", "XSAM_ISOLATION__FIRST_USER_ID", "XSAM_DATABASE__URL"):
        monkeypatch.setenv(name, "")
    assert get_settings() == Settings()
    assert get_settings().isolation.first_user_id is None


@pytest.mark.parametrize("key", ["hunter2", SECRET_KEY[:-1], f"{SECRET_KEY},", f"{SECRET_KEY},short"])
def test_key_of_secrets__that_is_none_is_refused_and_not_quoted(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("XSAM_SECRETS__KEY", key)
    with pytest.raises(ValidationError, match=r"is not 32 random bytes in URL-safe base64; `openssl rand") as caught:
        get_settings()
    assert key[:5] not in str(caught.value)


def test_environment_for__gives_a_child_the_same_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XSAM_API__PORT", "9000")
    monkeypatch.setenv("XSAM_RAY__NUM_CPUS", "3")
    monkeypatch.setenv("XSAM_SCHEDULING__HALF_LIFE_S", "3600.5")
    monkeypatch.setenv("XSAM_SCHEDULING__IS_PREEMPTION_ON", "false")
    monkeypatch.setenv("XSAM_TRAINING__ALLOWED_PACKAGES", '["ours", "theirs"]')
    monkeypatch.setenv("XSAM_DATABASE__URL", "postgresql+psycopg://u:hunter2@h/d")
    monkeypatch.setenv("XSAM_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("XSAM_SECRETS__KEY", f"{SECRET_KEY},{SECRET_KEY}")
    parent = get_settings()
    monkeypatch.setenv("XSAM_API__MAX_BODY_BYTES", "5000")  # set since: not the child's business
    child_environment = environment_for(parent)
    for name in [name for name in os.environ if name.startswith("XSAM_")]:
        monkeypatch.delenv(name)
    for name, value in child_environment.items():
        if name.startswith("XSAM_"):
            monkeypatch.setenv(name, value)
    child = get_settings()
    assert child.parent_pid == os.getpid()
    assert child.secrets.keys == (SECRET_KEY, SECRET_KEY)
    assert child.model_copy(update={"parent_pid": None}) == parent


@pytest.mark.parametrize(
    ("api", "code", "is_taken"),
    [
        ({}, {}, True),
        ({"host": "0.0.0.0"}, {}, False),
        ({"auth": "token"}, {}, False),
        ({"auth": "token"}, {"upload": "on"}, True),
        ({}, {"upload": "off"}, False),
    ],
)
def test_code_of_users__is_taken_on_loopback_and_elsewhere_by_the_operators_word(
    api: dict[str, str], code: dict[str, str], is_taken: bool
) -> None:
    settings = Settings(api=ApiSettings.model_validate(api), code=CodeSettings.model_validate(code))
    assert settings.allowed_code.takes_bundles is is_taken


def test_isolation__and_managed_worker_groups_exclude_each_other() -> None:
    isolated = IsolationSettings(first_user_id=60_000)
    assert Settings(isolation=isolated).isolation.first_user_id == 60_000
    with pytest.raises(ValidationError, match="allowed is 'auto'"):
        Settings(isolation=isolated, ray=RayCluster(worker_groups="managed"))
    with pytest.raises(ValidationError, match="greater than or equal to 1000"):
        IsolationSettings(first_user_id=0)
