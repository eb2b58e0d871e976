"""A token is in the answer that makes it, in the header that uses it, and nowhere else."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.api.token_service import bearer
from xsam.api.client import Client
from xsam.services.teams import token_text


class Service:
    """`xsam serve --auth token` in a process of its own."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        command = [sys.executable, "-m", "xsam.api", "serve", "--no-dispatcher", "--auth", "token", "--port", "0"]
        self.process = subprocess.Popen(
            [*command, "--data-dir", str(data_dir)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = next(word for word in self.process.stdout.readline().split() if word.startswith("http://"))

    def read_first_token(self) -> str:
        assert self.process.stdout is not None
        return next(line for line in self.process.stdout if "token" in line).split()[-1]

    def stop(self) -> str:
        """End it in order and return what it printed since."""
        self.process.terminate()
        stdout, stderr = self.process.communicate(timeout=300)
        return stdout + stderr


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "data")
    yield service
    service.process.kill()
    service.process.communicate()


def _files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_first_admin_token__opens_the_service_and_is_shown_once(service: Service) -> None:
    token = service.read_first_token()
    with Client(service.url, token=token) as client:
        who = client.whoami()
    assert (who.user, who.team, who.is_admin) == ("admin", "default", True)
    assert token not in service.stop()

    again = Service(service.data_dir)
    try:
        with Client(again.url, token=token) as client:
            assert client.whoami().user == "admin"
        printed = again.stop()
        assert "First admin token" not in printed
        assert token_text.redact(printed) == printed
    finally:
        again.process.kill()


def test_token__leaves_no_trace(service: Service) -> None:
    """Whatever a caller does with it: used, put into the wrong place, or asked about."""
    first = service.read_first_token()
    with Client(service.url, token=first) as client:
        second = client.admin.create_token(label="ci").token
        job_id = client.submit({"labels": {"a": "b"}}).id
        client.admin.revoke_token(next(one.id for one in client.admin.tokens() if one.label == "ci"))
        listed = "".join(one.model_dump_json() for one in [*client.admin.tokens(), *client.admin.audit()])
    answers = [listed]
    with httpx.Client(base_url=service.url) as http:
        for token in (first, second):
            tries = [
                http.get("/v1/jobs", headers=bearer(second)),
                http.get(f"/v1/jobs/{token}", headers=bearer(first)),
                http.get(f"/v1/{token}", headers=bearer(first)),
                http.get("/v1/jobs", params={"token": token}, headers=bearer(first)),
                http.get("/v1/jobs", params={"name": token}, headers=bearer(first)),
                http.get("/v1/jobs", params={token: "x"}, headers=bearer(first)),
                http.post("/v1/tokens", json={"token": token}, headers=bearer(first)),
                http.post("/v1/jobs", json={"name": token, "epochs": token}, headers=bearer(first)),
                http.get("/v1/jobs", headers={"Authorization": f"Basic {token}", "X-Request-ID": token[:40]}),
                http.get(f"/v1/jobs/{job_id}/events", headers=bearer(token)),
            ]
            answers += [f"{response.headers}{response.text}" for response in tries]
    answers.append(service.stop())
    places = {**_files(service.data_dir), Path("answers"): "".join(answers).encode()}
    assert {path.name for path in places} >= {"api.log", "xsam.db", "answers"}
    for token in (first, second):
        secret = token.removeprefix("xsam_")[6:]
        assert [str(path) for path, content in places.items() if secret.encode() in content] == []


def test_database__keeps_digests_only(service: Service) -> None:
    token = service.read_first_token()
    service.stop()
    with sqlite3.connect(service.data_dir / "xsam.db") as connection:
        dump = "\n".join(connection.iterdump())
    connection.close()
    assert token_text.digest(token) in dump
    assert token not in dump


def test_recover__lets_a_locked_out_operator_back_in(service: Service) -> None:
    service.read_first_token()
    command = [sys.executable, "-m", "xsam.api", "token", "recover", "--user", "root", "--data-dir"]
    found = subprocess.run([*command, str(service.data_dir)], capture_output=True, text=True, check=True)
    with Client(service.url, token=found.stdout.strip()) as client:
        assert client.whoami().is_admin
        assert client.admin.audit()[0].actor == "system"
    missing = subprocess.run([*command, str(service.data_dir / "x")], capture_output=True, text=True, check=False)
    assert (missing.returncode, "there is no database in" in missing.stderr) == (1, True)


def test_auth_none__is_refused_for_other_hosts_before_anything_starts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "xsam.api", "serve", "--auth", "none", "--host", "0.0.0.0"]
    result = subprocess.run(
        [*command, "--data-dir", str(tmp_path / "data")], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "api.auth is 'none', but api.host is '0.0.0.0'" in result.stderr
    assert not (tmp_path / "data").exists()
