"""`xsam serve` as a real process, without a dispatcher: starts, stops, and what stands in its way."""

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import text

from xsam.api.cli import serve as serving
from xsam.api.client import Client
from xsam.services.artifacts.privacy import keep_private
from xsam.services.db.session import Database
from xsam.services.settings import Settings

Serve = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    started: list[subprocess.Popen[str]] = []

    def start(*options: str, environment: dict[str, str] | None = None) -> "subprocess.Popen[str]":
        command = [
            sys.executable,
            "-m",
            "xsam.api",
            "serve",
            "--no-dispatcher",
            "--data-dir",
            str(tmp_path / "data"),
            *options,
        ]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment or dict(os.environ)
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _url(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    assert process.stderr is not None
    words = process.stdout.readline().split()
    assert words, f"it ended: {process.stderr.read()}"
    return next(word for word in words if word.startswith("http://"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve__answers_until_it_is_told_to_stop(serve: Serve, tmp_path: Path, number: signal.Signals) -> None:
    process = serve("--port", "0")
    with Client(_url(process)) as client:
        job = client.submit({})
        events = client.follow_events(job.id)
        assert next(events).kind == "submitted"  # a stream is open when the signal comes
        process.send_signal(number)
        _, stderr = process.communicate(timeout=300)
    assert (process.returncode, stderr) == (0, "")
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["logs", "xsam.db"]
    assert '"path": "/v1/jobs"' in (tmp_path / "data" / "logs" / "api.log").read_text()


def test_serve__keeps_what_was_there(serve: Serve) -> None:
    first = serve("--port", "0")
    with Client(_url(first)) as client:
        job = client.submit({"name": "kept"})
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=300)
    with Client(_url(serve("--port", "0"))) as client:
        assert client.get(job.id).name == "kept"


def test_serve__a_taken_port_is_one_sentence(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        stdout, stderr = serve("--port", str(port)).communicate(timeout=300)
    assert stdout == ""
    assert stderr.startswith(f"Error: can't listen on 127.0.0.1 port {port}")
    assert len(stderr.splitlines()) == 1


def test_serve__settings_that_are_not_valid_are_one_sentence(serve: Serve) -> None:
    process = serve("--port", "99999")
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 1
    assert stderr.startswith("Error: the settings are not valid: api.port: ")


def test_serve__ends_when_its_parent_is_killed(serve: Serve, tmp_path: Path) -> None:
    # A shell-like parent that starts the server and does nothing else.
    program = (
        "import subprocess, sys, time; from xsam.services.settings import *; "
        "settings = Settings(data_dir=sys.argv[1], api={'port': 0}); "
        "child = subprocess.Popen([sys.executable, '-m', 'xsam.api', 'serve', '--no-dispatcher'], "
        "env=environment_for(settings)); print(child.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "data")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        url = next(word for word in parent.stdout.readline().split() if word.startswith("http://"))
        with Client(url) as client:
            client.health()
        parent.kill()
        parent.wait()
        deadline_s = time.monotonic() + 15
        while Path(f"/proc/{child}").exists():
            assert time.monotonic() < deadline_s, "the server outlived its parent"
            time.sleep(0.05)


def test_serve__keeps_its_data_from_other_users(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        data_dir = tmp_path / "data"
        data_dir.mkdir(mode=0o755)
        keep_private(Settings(data_dir=data_dir))
        log_file = data_dir / "logs" / "api.log"
        log_file.parent.mkdir()
        log_file.touch()
        database = Database(f"sqlite:///{data_dir / 'xsam.db'}")
        with database.unit_of_work() as session:
            session.execute(text("CREATE TABLE t (x)"))
        database.dispose()
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (data_dir, log_file, data_dir / "xsam.db")}
    assert modes == {"data": 0o700, "api.log": 0o600, "xsam.db": 0o600}


def test_serve__imports_what_plots_need_before_somebody_waits_for_it(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_loaded = threading.Event()
    monkeypatch.setattr(serving, "LOAD_AFTER_S", 0.0)
    monkeypatch.setattr(serving.plots, "load_importances", is_loaded.set)
    serving._Greeting("http://127.0.0.1:1", app.state.service, None, None).start()
    assert is_loaded.wait(60)
