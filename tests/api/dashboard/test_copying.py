"""What "Copy as" offers is run for real: the command, curl and Python say the same as the view."""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from datetime import date

import httpx
import pytest
from typer.testing import CliRunner

from tests.api.dashboard.reading import Element, read
from xsam.api.cli.main import app
from xsam.api.client import Client

_MARKS = {"CLI": "copy-CLI", "curl": "copy-curl", "Python": "copy-Python"}
Copied = Callable[[str], dict[str, str]]


@pytest.fixture
def copied(http: httpx.Client) -> Copied:
    """Return a view's three lines."""

    def lines(path: str) -> dict[str, str]:
        answer = http.get(path, headers={"Accept": "text/html"})
        page: Element = read(answer.text)
        return {name: page.one("pre", id=mark).text for name, mark in _MARKS.items()}

    return lines


def _command(url: str, line: str, *options: str) -> str:
    words = shlex.split(line)
    assert words[0] == "xsam"
    result = CliRunner(env={"XSAM_URL": url, "XSAM_TOKEN": ""}).invoke(app, [*words[1:], *options])
    assert result.exit_code == 0, result.output
    return result.stdout


def _curl(url: str, line: str) -> str:
    environment = {**os.environ, "XSAM_URL": url, "XSAM_TOKEN": "of-nobody"}
    done = subprocess.run(["sh", "-c", line], env=environment, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout


def test_list__says_the_same_at_every_door(copied: Copied, client: Client, url: str) -> None:
    names = ("first run", "second", "third")
    ids = [client.submit({"name": name, "labels": {"exp": "it's a $HOME;c"}}).id for name in names]
    client.submit({"name": "other"})
    client.cancel(ids[0])
    lines = copied("/jobs?label=exp%3Dit%27s+a+%24HOME%3Bc&state=queued&state=cancelled&sort=name&user=root")
    found = json.loads(_command(url, lines["CLI"], "-o", "json"))
    assert sorted(job["id"] for job in found) == sorted(ids)
    assert [job["id"] for job in json.loads(_curl(url, lines["curl"]))["items"]] == [job["id"] for job in found]
    python = eval(lines["Python"], {"client": client})
    assert [job.id for job in python.items] == [job["id"] for job in found]


@pytest.mark.parametrize("folder", ["jobs", "studies"])
def test_one__is_the_same_at_every_door(copied: Copied, client: Client, url: str, folder: str) -> None:
    made = client.submit({}) if folder == "jobs" else client.studies.submit({"preset": "rho"})
    lines = copied(f"/{folder}/{made.id}")
    assert made.id in _command(url, lines["CLI"])
    assert json.loads(_curl(url, lines["curl"]))["id"] == made.id
    assert eval(lines["Python"], {"client": client}).id == made.id


@pytest.mark.parametrize("view", ["/queue", "/cluster", "/usage?since=2026-01-01", "/studies?state=queued"])
def test_views__are_read_the_same_at_every_door(copied: Copied, client: Client, url: str, view: str) -> None:
    client.submit({})
    client.studies.submit({"preset": "rho"})
    lines = copied(view)
    _command(url, lines["CLI"])
    answered = json.loads(_curl(url, lines["curl"]))
    python = eval(lines["Python"], {"client": client, "date": date}).model_dump(mode="json")
    for text in (answered, python):
        text.pop("as_of", None)
        text.pop("at", None)
    assert _without_times(answered) == _without_times(python)


def _without_times(found: object) -> str:
    return re.sub(r"\d{4}-\d\d-\d\dT[^\"]*", "TIME", json.dumps(found, sort_keys=True))
