"""`xsam team`, `xsam token` and `xsam audit` against a real service."""

import json
from collections.abc import Callable

import pytest
from typer.testing import CliRunner, Result

from tests.api.token_service import Callers
from xsam.api.cli.main import app
from xsam.api.cli.show import out
from xsam.api.client import Client
from xsam.services.settings import ApiSettings, Settings
from xsam.services.teams.roles import Role

Command = Callable[..., Result]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"api": ApiSettings(auth="token")})


@pytest.fixture
def xsam(url: str, callers: Callers, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command as one of the callers."""
    monkeypatch.setenv("XSAM_URL", url)
    monkeypatch.setattr(out, "width", 160)
    runner = CliRunner()

    def run(caller: str, *words: object) -> Result:
        return runner.invoke(app, [str(word) for word in words], env={"XSAM_TOKEN": callers.valid[caller]})

    return run


def _row(result: Result, name: str) -> list[str]:
    return next(line.split() for line in result.stdout.splitlines() if line.startswith(name))


def test_team__is_created_listed_and_changed(xsam: Command) -> None:
    result = xsam("admin", "team", "create", "green", "--weight", 2, "--gpus", 4, "--running-jobs", 10)
    assert result.stdout.strip() == "Team green: weight 2, 4 GPUs, 10 running jobs."
    result = xsam("admin", "team", "set", "green", "--gpus", "none", "--cpus", 16)
    assert result.stdout.strip() == "Team green: weight 2, 16 CPUs, 10 running jobs."
    assert _row(xsam("admin", "team", "list"), "green") == ["green", "2", "-", "16", "10"]


def test_team__that_exists_is_not_created_over(xsam: Command) -> None:
    xsam("admin", "team", "set", "red", "--gpus", 4)
    result = xsam("admin", "team", "create", "red")
    assert (result.exit_code, "exists already" in result.stderr) == (1, True)
    assert _row(xsam("admin", "team", "list"), "red")[2] == "4"


@pytest.mark.parametrize("value", ["many", "-1", "1e9", ""])
def test_team__refuses_a_limit_that_is_none(xsam: Command, value: str) -> None:
    result = xsam("admin", "team", "set", "red", f"--gpus={value}")
    assert result.exit_code == 1
    assert "gpus" in result.stderr


def test_member__gets_in_with_a_token_and_out_without(xsam: Command, url: str) -> None:
    assert xsam("lead", "team", "add", "red", "joe", "--role", "viewer").stdout.strip() == "joe is viewer of team red."
    result = xsam("lead", "token", "create", "--user", "joe", "--label", "laptop", "--days", 1)
    with Client(url, token=result.stdout.strip(), num_tries=1) as client:
        assert (client.whoami().user, client.whoami().role) == ("joe", Role.VIEWER)
    assert result.stdout.strip() not in result.stderr
    assert _row(xsam("lead", "team", "members", "red"), "joe")[1] == "viewer"
    assert xsam("lead", "team", "remove", "red", "joe").exit_code == 0
    (token,) = [one for one in json.loads(xsam("lead", "token", "list", "-o", "json").stdout) if one["user"] == "joe"]
    assert (token["label"], token["revoked_at"] is not None) == ("laptop", True)


def test_token__is_listed_without_its_secret_and_revoked(xsam: Command) -> None:
    made = json.loads(xsam("member", "token", "create", "-o", "json").stdout)
    listed = xsam("member", "token", "list")
    row = _row(listed, made["id"])
    assert row[1:4] == [made["token"][:11] + "...", "ann", "red"]
    assert made["token"] not in listed.stdout
    assert xsam("member", "token", "revoke", made["id"]).exit_code == 0
    assert _row(xsam("member", "token", "list"), made["id"])[-1] == "revoked"


def test_token__for_somebody_else_is_refused_to_a_member(xsam: Command) -> None:
    result = xsam("member", "token", "create", "--user", "lea")
    assert (result.exit_code, result.stdout, "needs the role admin" in result.stderr) == (1, "", True)


def test_audit__names_who_changed_what(xsam: Command) -> None:
    xsam("admin", "team", "set", "red", "--gpus", 2)
    xsam("lead", "team", "add", "red", "joe")
    lines = [line.split("  ", 1)[1] for line in xsam("lead", "audit", "--limit", 2).stdout.splitlines()]
    assert lines == ["lea: member_added joe in red (role member)", "root: team_changed red (quota {'gpus': 2.0})"]
    assert xsam("member", "audit").exit_code == 1


def test_team__is_bound_by_kind_of_gpu_until_it_is_not(xsam: Command) -> None:
    said = xsam("admin", "team", "set", "red", "--gpus-of", "H100=8", "--gpus-of", "A100=2.5").stdout
    assert "8 GPUs of kind h100, 2.5 GPUs of kind a100" in " ".join(said.split())
    refused = xsam("admin", "team", "set", "red", "--gpus-of", "H100=many")
    assert (refused.exit_code, "--gpus-of is 'many'" in refused.stderr) == (1, True)
    assert "of kind" not in xsam("admin", "team", "set", "red", "--gpus-of", "none").stdout


def test_team__says_what_idle_gpus_lead_to(xsam: Command) -> None:
    given = ("--idle", "then=requeue", "--idle", "after=20", "--idle", "grace=5", "--idle", "requeues=2")
    assert "idle GPUs: requeue, after 20 min, grace 5 min, paused after 2 requeues" in " ".join(
        xsam("admin", "team", "set", "red", *given).stdout.split()
    )
    for value, said in (
        ("now", "--idle is 'now'"),
        ("then=shout", "idle.then"),
        ("after=soon", "allowed are minutes"),
        ("requeues=1.5", "allowed are whole numbers"),
        ("requeues=-1", "idle.max_requeues"),
    ):
        refused = xsam("admin", "team", "set", "red", "--idle", value)
        assert (refused.exit_code, said in refused.stderr) == (1, True), value
    back = ("--idle", "after=default", "--idle", "grace=default", "--idle", "requeues=default")
    kept = xsam("admin", "team", "set", "red", *back).stdout
    assert "idle GPUs: requeue." in kept
