"""`xsam secret` against a real server."""

import json

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from tests.support.callers import SECRET_KEY
from xsam.api.cli import secrets
from xsam.api.cli.main import app
from xsam.api.client import Client
from xsam.services.db.session import Database
from xsam.services.secrets import service
from xsam.services.settings import SecretSettings, Settings

VALUE = "wandb-0123456789"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"secrets": SecretSettings(key=SecretStr(SECRET_KEY))})


def _xsam(url: str, *words: str, given: str | None = None, status: int = 0) -> str:
    done = CliRunner().invoke(app, [*words, "--url", url], input=given)
    assert done.exit_code == status, done.output
    assert VALUE not in done.output
    return done.output.replace("\n", " ")


def _value(database: Database) -> str:
    with database.read() as session:
        return service.values(session, ["WANDB_API_KEY"], team="default", keys=(SECRET_KEY,))["WANDB_API_KEY"]


def test_secret__is_read_from_standard_input_listed_and_deleted(url: str, client: Client, database: Database) -> None:
    client.admin.create_team("default")
    assert "can name WANDB_API_KEY now" in _xsam(url, "secret", "set", "WANDB_API_KEY", given=f"{VALUE}\n")
    assert _value(database) == VALUE
    listed = json.loads(_xsam(url, "secret", "list", "-o", "json"))
    assert [(one["name"], set(one)) for one in listed] == [("WANDB_API_KEY", {"team", "name", "set_by", "set_at"})]
    assert "WANDB_API_KEY" in _xsam(url, "secret", "list")
    _xsam(url, "secret", "delete", "WANDB_API_KEY")
    assert json.loads(_xsam(url, "secret", "list", "-o", "json")) == []
    assert "has no secret" in _xsam(url, "secret", "delete", "WANDB_API_KEY", status=1)
    assert [one.action for one in client.admin.audit()][:2] == ["secret_deleted", "secret_set"]


def test_value__is_typed_unseen_in_a_terminal(
    url: str, client: Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.admin.create_team("default")
    asked: list[tuple[str, bool]] = []

    def prompt(text: str, *, hide_input: bool) -> str:
        asked.append((text, hide_input))
        return VALUE

    monkeypatch.setattr(secrets.typer, "prompt", prompt)
    monkeypatch.setattr(secrets.sys, "stdin", _Terminal())
    secrets.set_secret("WANDB_API_KEY", None, url)
    assert asked == [("Value", True)]
    assert _value(database) == VALUE


def test_value__is_no_argument_and_not_empty(url: str, client: Client) -> None:
    client.admin.create_team("default")
    done = CliRunner().invoke(app, ["secret", "set", "WANDB_API_KEY", VALUE, "--url", url])
    assert done.exit_code == 2
    assert "no value on standard input" in _xsam(url, "secret", "set", "WANDB_API_KEY", given="", status=1)
    assert "value must have at least 8" in _xsam(url, "secret", "set", "WANDB_API_KEY", given="short\n", status=1)


class _Terminal:
    def isatty(self) -> bool:
        return True
