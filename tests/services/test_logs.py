"""What log lines of the service's processes say, and where they end up."""

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from xsam.services import logs
from xsam.services.settings import LogSettings
from xsam.services.teams import token_text

log = logging.getLogger("xsam.test")
JSON = LogSettings(format="json")


@pytest.fixture(autouse=True)
def _own_handlers() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in [one for one in root.handlers if one not in handlers]:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def _documents(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_json_lines__say_which_request_and_which_attempt(tmp_path: Path) -> None:
    logs.to_file(tmp_path / "api.log", JSON)
    with logs.of_request("r1"):
        log.info("asked for %s", "it")
    logs.of_attempt(log, "4yvyyvwh3t7x", 2).warning("gone")
    log.info("neither")
    first, second, third = _documents(tmp_path / "api.log")
    assert (first["message"], first["request_id"], first["level"]) == ("asked for it", "r1", "info")
    assert (second["job"], second["attempt"], second["logger"]) == ("4yvyyvwh3t7x", 2, "xsam.test")
    assert {"request_id", "job", "attempt"} & third.keys() == set()


def test_json_lines__are_one_line_each_whatever_happens(tmp_path: Path) -> None:
    logs.to_file(tmp_path / "api.log", JSON)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("failed")
    [line] = _documents(tmp_path / "api.log")
    assert "ValueError: two\nlines" in line["traceback"]


def test_fields__replace_the_message_in_json_only(tmp_path: Path) -> None:
    logs.to_file(tmp_path / "api.log", JSON)
    logs.to_file(tmp_path / "readable.log", LogSettings())
    log.info("%s", '{"status": 200}', extra={"fields": {"status": 200}})
    [line] = _documents(tmp_path / "api.log")
    assert (line["status"], "message" in line) == (200, False)
    assert '{"status": 200}' in (tmp_path / "readable.log").read_text()


def test_text_lines__end_with_what_they_are_about(tmp_path: Path) -> None:
    logs.to_file(tmp_path / "api.log", LogSettings())
    logs.of_attempt(log, "4yvyyvwh3t7x", 2).info("begins")
    with logs.of_request("r1"):
        log.info("asked")
    first, second = (tmp_path / "api.log").read_text().splitlines()
    assert first.endswith("INFO xsam.test: begins [job 4yvyyvwh3t7x, attempt 2]")
    assert second.endswith("INFO xsam.test: asked [request r1]")


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_token__is_ever_written(tmp_path: Path, form: str) -> None:
    logs.to_file(tmp_path / "api.log", LogSettings.model_validate({"format": form}))
    token = token_text.new_token()
    log.info("called with %s", token)
    assert token not in (tmp_path / "api.log").read_text()


def test_files__are_rotated_and_only_so_many_kept(tmp_path: Path) -> None:
    logs.to_file(tmp_path / "api.log", LogSettings(max_bytes=10_000, num_old_files=2))
    for _ in range(100):
        log.info("x" * 1000)
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["api.log", "api.log.1", "api.log.2"]
    assert all(path.stat().st_size <= 10_000 for path in files)


def test_attempt_file__has_the_lines_of_its_attempt_from_whatever_thread(tmp_path: Path) -> None:
    file = logs.AttemptFile(tmp_path / "attempts" / "2", "one", 2, JSON)
    mine, others = logs.of_attempt(log, "one", 2), logs.of_attempt(log, "two", 2)
    thread = threading.Thread(target=lambda: mine.warning("from a thread"))
    thread.start()
    thread.join()
    others.info("not here")
    log.info("nor here")
    file.close()
    mine.info("nor afterwards")
    assert [line["message"] for line in _documents(tmp_path / "attempts" / "2" / "runner.log")] == ["from a thread"]


def test_attempt_file__that_can_not_be_written_costs_no_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "attempts").write_text("a file where a folder should be")
    monkeypatch.setattr(logging, "raiseExceptions", False)
    file = logs.AttemptFile(tmp_path / "attempts" / "2", "one", 2, JSON)
    logs.of_attempt(log, "one", 2).info("nowhere to go")
    file.close()
