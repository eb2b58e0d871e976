"""The examples of proxies, each run in front of a real service: TLS, streams as they come, large uploads."""

import json
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.api.token_service import Callers, bearer, make_callers
from tests.support import programs
from tests.support.bundles import LIMITS
from tests.support.ports import free_port
from tests.support.served import Served, served, wait_until
from xsam.services.bundles import archive

PROXIES = Path(__file__).parents[2] / "deploy" / "proxy"
NAME = "xsam.example.org"


@dataclass(frozen=True)
class Certificate:
    """Self-signed, for 127.0.0.1."""

    file: Path
    key: Path

    @property
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.file))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    environment = {**os.environ, "XSAM_CODE__UPLOAD": "on"}
    with served(
        tmp_path_factory.mktemp("service") / "data", "--no-dispatcher", "--auth", "token", environment=environment
    ) as running:
        yield running


@pytest.fixture(scope="module")
def callers(service: Served) -> Callers:
    return make_callers(service.database)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    openssl = programs.find("openssl", package="openssl")
    folder = tmp_path_factory.mktemp("tls")
    found = Certificate(folder / "fullchain.pem", folder / "privkey.pem")
    made = f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN={NAME}".split()
    names = ["-addext", f"subjectAltName=IP:127.0.0.1,DNS:{NAME}"]
    files = ["-keyout", str(found.key), "-out", str(found.file)]
    subprocess.run([openssl, *made, *names, *files], check=True, capture_output=True)
    return found


def nginx(folder: Path, port: int, upstream: str, certificate: Certificate) -> list[str]:
    """Return the command that runs the example with this machine's ports and folders."""
    program = programs.find("nginx", package="nginx-light")
    folders = "".join(
        f"  {kind}_temp_path {folder / kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = changed(
        (PROXIES / "nginx.conf").read_text(),
        ("http {\n", f"http {{\n  access_log off;\n{folders}"),
        ("listen 80;", f"listen 127.0.0.1:{free_port()};"),
        ("listen 443 ssl http2;", f"listen 127.0.0.1:{port} ssl http2;"),
        ("127.0.0.1:8042", upstream),
        ("/etc/ssl/xsam/fullchain.pem", str(certificate.file)),
        ("/etc/ssl/xsam/privkey.pem", str(certificate.key)),
    )
    (folder / "nginx.conf").write_text(text)
    user = "user root; " if os.geteuid() == 0 else ""  # else its workers may not enter the test's folders
    options = f"{user}daemon off; pid {folder / 'pid'}; error_log {folder / 'log'};"
    return [str(program), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "log"), "-g", options]


def caddy(folder: Path, port: int, upstream: str, certificate: Certificate) -> list[str]:
    """Return the command that runs the example; the variables that it reads name this machine's ports and folders."""
    program = programs.find("caddy", package="caddy")
    text = changed(
        (PROXIES / "Caddyfile").read_text(),
        ("\tgrace_period", "\tadmin off\n\tauto_https disable_redirects\n\tgrace_period"),
    )
    (folder / "Caddyfile").write_text(text)
    return [str(program), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


def changed(text: str, *changes: tuple[str, str]) -> str:
    """Return the text with each of the words replaced, all of which it must have."""
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module", params=[nginx, caddy], ids=["nginx", "caddy"])
def proxy(
    request: pytest.FixtureRequest,
    service: Served,
    certificate: Certificate,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[httpx.Client]:
    command: Callable[[Path, int, str, Certificate], list[str]] = request.param
    folder, port = tmp_path_factory.mktemp("proxy"), free_port()
    upstream = service.url.removeprefix("http://")
    named = {
        "XSAM_NAME": f"https://{NAME}:{port}",
        "XSAM_TLS": f"tls {certificate.file} {certificate.key}",
        "XSAM_UPSTREAM": upstream,
    }
    environment = {**os.environ, **named, "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            command(folder, port, upstream, certificate), stdout=out, stderr=out, env=environment
        )
        try:
            with httpx.Client(
                base_url=f"https://127.0.0.1:{port}", verify=certificate.context, headers={"Host": NAME}, timeout=30
            ) as client:
                wait_until(lambda: process.poll() is not None or _listens(port))
                assert process.poll() is None, (folder / "out").read_text()
                yield client
        finally:
            process.terminate()
            process.wait(timeout=60)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_service__answers_behind_tls(proxy: httpx.Client) -> None:
    answer = proxy.get("/healthz")
    assert answer.status_code == 200
    assert "max-age" in answer.headers["Strict-Transport-Security"]
    assert proxy.get("/v1/jobs").status_code == 401


def test_sign_in__gets_a_cookie_for_tls_alone(proxy: httpx.Client, callers: Callers) -> None:
    form = {"token": callers.valid["member"], "next": "/jobs"}
    answer = proxy.post("/sign-in", data=form, headers={"Origin": f"https://{NAME}", "Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 303, answer.text
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("__Host-xsam=")
    assert "Secure" in cookie


def test_stream__tells_of_a_job_while_it_is_open(proxy: httpx.Client, callers: Callers) -> None:
    headers = callers.headers("member")
    with proxy.stream("GET", "/v1/changes", headers={**headers, "Accept": "text/event-stream"}) as stream:
        lines = stream.iter_lines()
        assert next(line for line in lines if line.startswith("data:"))  # where the stream begins
        made = proxy.post("/v1/jobs", json={}, headers=headers).json()["id"]
        told = (json.loads(line.removeprefix("data:")) for line in lines if line.startswith("data:"))
        assert any(made in json.dumps(message) for message in told)


def test_upload__of_many_megabytes_arrives_whole(proxy: httpx.Client, callers: Callers, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "weights.bin").write_bytes(os.urandom(20 * 2**20))
    bundle = archive.pack(tmp_path / "code", LIMITS)
    sent = proxy.put(
        f"/v1/bundles/{bundle.id}",
        content=bundle.packed,
        headers={**callers.headers("member"), "Content-Type": "application/octet-stream"},
    )
    assert sent.status_code == 200, sent.text
    assert sent.json()["id"] == bundle.id


def test_body_beyond_the_limit__is_refused_by_the_proxy(proxy: httpx.Client, callers: Callers) -> None:
    answer = proxy.put(
        "/v1/bundles/sha256:" + 64 * "0",
        content=bytes(70 * 2**20),
        headers={**bearer(callers.valid["member"]), "Content-Type": "application/octet-stream"},
    )
    assert answer.status_code == 413


def test_many_streams__leave_room_for_others(proxy: httpx.Client, callers: Callers) -> None:
    headers = {**callers.headers("lead"), "Accept": "text/event-stream"}
    opened = threading.Barrier(11)
    done = threading.Event()

    def listen() -> None:
        with proxy.stream("GET", "/v1/changes", headers=headers):
            opened.wait(timeout=60)
            done.wait(timeout=60)

    readers = [threading.Thread(target=listen) for _ in range(10)]
    for reader in readers:
        reader.start()
    opened.wait(timeout=60)
    try:
        assert proxy.get("/v1/jobs", headers=callers.headers("member")).status_code == 200
    finally:
        done.set()
        for reader in readers:
            reader.join()
