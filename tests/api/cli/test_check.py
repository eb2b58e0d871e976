"""Code that a job brings is sent and tried before the job is queued."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from xsam.api.cli import check
from xsam.api.cli.main import app
from xsam.api.cli.show import out
from xsam.api.client import Client
from xsam.services.checks import service as checks
from xsam.services.db.session import Database

Command = Callable[..., Result]
GOOD = {"num_parameters": 1200, "num_trainable": 1000, "batch": "float32[8, 2]", "metrics": ["f1", "loss"]}
BAD = {"error": "TypeError: unhappy", "traceback": '  File "acme/task.py", line 3, in loss\nTypeError: unhappy\n'}


@pytest.fixture
def xsam(url: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("XSAM_URL", url)
    monkeypatch.setattr(out, "width", 120)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "mine.py").write_text("class Task: ...")
    (folder / ".env").write_text("PASSWORD=x")
    (folder / "job.yaml").write_text('code: "."\ntask: {target: "mine:Task"}\n')
    return folder / "job.yaml"


@contextmanager
def answering(database: Database, answer: dict[str, Any]) -> Iterator[None]:
    """Answer every check, as a dispatcher does."""
    is_over = threading.Event()

    def answer_all() -> None:
        while not is_over.wait(0.05):
            with database.unit_of_work() as session:
                for check_id, _ in checks.due(session, limit=5):
                    checks.answer(session, check_id, answer)

    thread = threading.Thread(target=answer_all)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_submit__of_code_that_can_train_queues_it(
    xsam: Command, client: Client, database: Database, job_file: Path
) -> None:
    with answering(database, GOOD):
        result = xsam("submit", job_file)
    assert result.exit_code == 0, result.output
    assert "Left out, since they look like secrets: .env" in result.output
    assert "Uploaded 2 files" in result.output
    (job,) = client.list()
    assert job.spec.code is not None
    assert client.bundles.get(job.spec.code.bundle).num_files == 2


def test_submit__of_code_that_fails_shows_the_users_frames_and_queues_nothing(
    xsam: Command, client: Client, database: Database, job_file: Path
) -> None:
    with answering(database, BAD):
        result = xsam("submit", job_file)
    assert result.exit_code == 1
    assert '  File "acme/task.py", line 3, in loss\n' in result.output
    assert "Error: TypeError: unhappy" in result.output
    assert list(client.list()) == []


def test_check__prints_what_it_found(xsam: Command, database: Database, job_file: Path) -> None:
    with answering(database, GOOD):
        result = xsam("check", job_file)
    assert result.exit_code == 0, result.output
    for text in ("it can train", "1,200 (1,000 trained)", "float32[8, 2]", "f1, loss"):
        assert text in result.output


def test_submit__without_a_dispatcher_says_that_it_is_unchecked(
    xsam: Command, client: Client, job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "PATIENCE_S", 0.0)
    result = xsam("submit", job_file)
    assert result.exit_code == 0, result.output
    assert "the code is not checked" in result.output
    assert len(list(client.list())) == 1


def test_code__that_is_no_folder_is_told(xsam: Command, job_file: Path) -> None:
    result = xsam("submit", job_file, "--set", "code=gone")
    assert result.exit_code == 1
    assert "code is 'gone'" in result.output


def test_run__is_for_this_machine(xsam: Command, job_file: Path) -> None:
    result = xsam("run", job_file)
    assert result.exit_code == 1
    assert "--local" in result.output
