"""`xsam team disable|enable|delete` and `xsam user` against a real service."""

from collections.abc import Callable

import httpx
import pytest
from typer.testing import CliRunner, Result

from tests.api.token_service import Callers, submit
from xsam.api.cli.main import app
from xsam.api.cli.show import out
from xsam.services.settings import ApiSettings, Settings

Command = Callable[..., Result]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"api": ApiSettings(auth="token")})


@pytest.fixture
def xsam(url: str, callers: Callers, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command as one of the callers, with an answer to what it asks."""
    monkeypatch.setenv("XSAM_URL", url)
    monkeypatch.setattr(out, "width", 160)
    runner = CliRunner()

    def run(caller: str, *words: object, answer: str | None = None) -> Result:
        env = {"XSAM_TOKEN": callers.valid[caller]}
        return runner.invoke(app, [str(word) for word in words], env=env, input=answer)

    return run


def test_team__is_disabled_only_after_its_leftovers_were_said(xsam: Command) -> None:
    result = xsam("admin", "team", "disable", "red", answer="n\n")
    assert result.exit_code == 1
    assert "Ends now, for good: 3 tokens" in result.stderr
    assert xsam("member", "whoami").exit_code == 0
    result = xsam("admin", "team", "disable", "red", answer="y\n")
    assert "Ended: 3 tokens, 0 sessions; cancelled: 0 jobs" in result.stdout
    assert "red (disabled)" in xsam("admin", "team", "list").stdout
    refused = xsam("member", "whoami")
    assert (refused.exit_code, "revoked" in refused.stderr) == (1, True)
    assert "takes jobs" in xsam("admin", "team", "enable", "red").stdout
    assert xsam("admin", "token", "create", "--user", "ann", "--team", "red").exit_code == 0


def test_team__is_deleted_once_its_jobs_have_ended(xsam: Command, http: httpx.Client, callers: Callers) -> None:
    job_id = submit(http, callers)
    result = xsam("admin", "team", "delete", "red", "--yes")
    assert (result.exit_code, "1 jobs that have not ended" in result.stderr) == (1, True)
    result = xsam("admin", "team", "disable", "red", "--cancel-jobs", "--yes")
    assert "cancelled: 1 jobs" in result.stdout
    assert "is deleted" in xsam("admin", "team", "delete", "red", "--yes").stdout
    assert "red" not in xsam("admin", "team", "list").stdout
    assert job_id in xsam("admin", "list").stdout


def test_user__is_listed_disabled_and_deleted(xsam: Command) -> None:
    assert "is disabled" in xsam("admin", "user", "disable", "ann", "--yes").stdout
    assert xsam("member", "whoami").exit_code == 1
    ann = next(line for line in xsam("admin", "user", "list").stdout.splitlines() if line.startswith("ann"))
    assert not ann.endswith("-")
    assert "may have tokens again" in xsam("admin", "user", "enable", "ann").stdout
    assert "is deleted" in xsam("admin", "user", "delete", "ann", "--yes").stdout
    assert "ann" not in xsam("admin", "team", "members", "red").stdout
    assert "is you" in xsam("admin", "user", "delete", "root", "--yes").stderr.replace("\n", " ")


def test_service_account__is_made_and_listed(xsam: Command) -> None:
    made = xsam("lead", "user", "service", "nightly", "--team", "red", "--role", "viewer")
    assert (made.exit_code, "service account, viewer of team red" in made.stdout) == (0, True), made.output
    assert "nightly" in xsam("admin", "user", "list").stdout
    assert "service account" in xsam("admin", "user", "list").stdout
    refused = xsam("admin", "user", "service", "ann", "--team", "red")
    assert (refused.exit_code, "choose another name" in refused.stderr) == (1, True)
