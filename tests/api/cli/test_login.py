"""`xsam login` and the file it writes, against a service that needs tokens."""

import json
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from tests.api.token_service import Callers
from xsam.api.cli import credentials
from xsam.api.cli.credentials import Credentials
from xsam.api.cli.main import app
from xsam.services.settings import ApiSettings, Settings
from xsam.services.teams import device_login, token_text

Command = Callable[..., Result]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"api": ApiSettings(auth="token")})


@pytest.fixture
def xsam() -> Command:
    runner = CliRunner()
    return lambda *words, **options: runner.invoke(app, [str(word) for word in words], **options)


def test_login__remembers_where_and_who(xsam: Command, url: str, callers: Callers) -> None:
    result = xsam("login", "--url", url, input=callers.valid["member"] + "\n")
    assert (result.exit_code, "you are ann, member of team red" in result.stdout) == (0, True), result.output
    assert callers.valid["member"] not in result.output
    assert "ann, member of team red" in xsam("whoami").stdout
    assert xsam("list").exit_code == 0


def test_login__keeps_the_token_from_everybody_else(xsam: Command, url: str, callers: Callers) -> None:
    xsam("login", "--url", url, input=callers.valid["member"] + "\n")
    path = credentials.path()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    path.chmod(0o640)
    result = xsam("whoami")
    assert (result.exit_code, "can be read by others; run: chmod 600" in result.stderr) == (1, True)


def test_login__with_a_bad_token_remembers_nothing(xsam: Command, url: str) -> None:
    result = xsam("login", "--url", url, input=token_text.new_token() + "\n")
    assert (result.exit_code, "not one of this service's" in result.stderr) == (1, True)
    assert not credentials.path().exists()


def test_token__on_the_command_line_and_in_the_environment_wins(xsam: Command, url: str, callers: Callers) -> None:
    xsam("login", "--url", url, input=callers.valid["member"] + "\n")
    assert xsam("--token", callers.valid["stranger"], "whoami").stdout.startswith("sam,")
    assert xsam("whoami", env={"XSAM_TOKEN": callers.valid["lead"]}).stdout.startswith("lea,")
    assert xsam("whoami").stdout.startswith("ann,")


def test_token__goes_only_to_the_service_it_is_for(xsam: Command, url: str, callers: Callers) -> None:
    credentials.save(Credentials("http://127.0.0.1:1", {"http://127.0.0.1:1": callers.valid["member"]}))
    result = xsam("whoami", "--url", url)
    assert (result.exit_code, "this service needs a token" in result.stderr) == (1, True)
    assert "Log in with `xsam login`" in result.stderr


def test_logout__forgets(xsam: Command, url: str, callers: Callers) -> None:
    xsam("login", "--url", url, input=callers.valid["member"] + "\n")
    assert xsam("logout", "--url", url).exit_code == 0
    assert callers.valid["member"] not in credentials.path().read_text()
    assert xsam("whoami", "--url", url).exit_code == 1


@pytest.mark.parametrize("text", ["", "[]", "{", '{"url": 1}', '{"tokens": []}', "\x00"])
def test_load__names_a_file_it_cannot_read(xsam: Command, text: str) -> None:
    path = credentials.path()
    path.parent.mkdir(parents=True)
    path.write_text(text)
    path.chmod(0o600)
    result = xsam("list")
    assert (result.exit_code, "remove it and run `xsam login`" in result.stderr) == (1, True)


def test_save__replaces_what_was_there(tmp_path: Path) -> None:
    credentials.save(Credentials("http://a", {"http://a": "1"}))
    path = credentials.save(Credentials("http://b", {"http://a": "1", "http://b": "2"}))
    assert credentials.load() == Credentials("http://b", {"http://a": "1", "http://b": "2"})
    assert set(json.loads(path.read_text())) == {"url", "tokens"}


def test_login__from_a_pipe_warns_of_nothing(url: str, callers: Callers) -> None:
    words = [sys.executable, "-W", "always", "-m", "xsam.api", "login", "--url", url]
    done = subprocess.run(words, input=callers.valid["member"], capture_output=True, text=True, check=True, timeout=300)
    assert done.stderr == ""
    assert "you are ann" in done.stdout
    empty = subprocess.run(words, input="", capture_output=True, text=True, check=False, timeout=300)
    assert (empty.returncode, "no token on standard input" in empty.stderr) == (1, True)


def test_login__by_a_code_that_is_confirmed_at_the_page(
    xsam: Command, url: str, callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_login, "INTERVAL_S", 1.0)
    words = [sys.executable, "-m", "xsam.api", "login", "--browser", "--url", url]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    said = process.stderr.readline() + process.stderr.readline() + process.stderr.readline()
    code = re.search(r"^ +([A-Z]{4}-[A-Z]{4})$", said, re.MULTILINE)
    assert code is not None, said
    assert f"{url}/device?code={code[1]}" in said
    headers = {**callers.headers("member"), "Sec-Fetch-Site": "same-origin"}
    form = {"code": code[1], "decision": "confirm"}
    httpx.post(f"{url}/device", data=form, headers=headers, timeout=300).raise_for_status()
    out, _ = process.communicate(timeout=300)
    assert (process.returncode, "you are ann, member of team red" in out) == (0, True), out
    assert xsam("whoami").stdout.startswith("ann, member")
