"""`xsam webhook` against a real server."""

import json

import pytest
from typer.testing import CliRunner

from tests.support.callers import make_webhook
from xsam.api.cli.main import app
from xsam.api.client import Client
from xsam.services.db.session import Database
from xsam.services.notifications import outbox
from xsam.services.settings import NotificationSettings, Settings


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"notifications": NotificationSettings(allowed_hosts=("hooks.example.com",))})


def _xsam(url: str, *words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--url", url])
    assert done.exit_code == 0, done.output
    return done.output


def test_webhook__is_added_tested_and_removed(url: str, client: Client, database: Database) -> None:
    client.admin.create_team("default")
    added = json.loads(_xsam(url, "webhook", "add", "https://hooks.example.com/x", "--on", "study", "-o", "json"))
    assert added["secret"].startswith("whsec_")
    assert added["kinds"] == ["study"]
    listed = _xsam(url, "webhook", "list", "-o", "json")
    assert [one["id"] for one in json.loads(listed)] == [added["id"]]
    assert added["secret"] not in listed
    assert "is sent within" in _xsam(url, "webhook", "test", added["id"])
    with database.unit_of_work() as session:
        (message,) = outbox.due(session, limit=5)
        outbox.note_failed(session, message, "it answered 500")
    shown = _xsam(url, "webhook", "deliveries", added["id"]).replace("\n", " ")
    assert "webhook.test" in shown
    assert "500" in shown
    _xsam(url, "webhook", "remove", added["id"])
    assert json.loads(_xsam(url, "webhook", "list", "-o", "json")) == []
    assert [one.action for one in client.admin.audit()][:2] == ["webhook_removed", "webhook_added"]


def test_webhook__to_a_host_that_is_not_allowed_is_refused(url: str, client: Client) -> None:
    client.admin.create_team("default")
    done = CliRunner().invoke(app, ["webhook", "add", "https://elsewhere.org/", "--url", url])
    assert done.exit_code == 1
    assert "allowed are hooks.example.com" in done.output.replace("\n", " ")


def test_webhook__of_another_team_is_not_there(url: str, client: Client, database: Database) -> None:
    client.admin.create_team("default")
    client.admin.create_team("red")
    other = make_webhook(database, "red")
    done = CliRunner().invoke(app, ["webhook", "remove", other, "--url", url])
    assert "no webhook" in done.output
