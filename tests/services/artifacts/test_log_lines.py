from pathlib import Path

from xsam.services.artifacts import logs
from xsam.services.artifacts.log_lines import read_numbered
from xsam.services.artifacts.logs import LogWriter


def _write(folder: Path, *texts: str, rank: int = 0, max_bytes: int = logs.MAX_FILE_BYTES) -> None:
    writer = LogWriter(folder, rank, max_bytes=max_bytes)
    for text in texts:
        writer.write(text)
    writer.close()


def test_lines__are_read_from_before_and_at_the_end(tmp_path: Path) -> None:
    _write(tmp_path, *(f"line {number}" for number in range(1, 11)))
    last = read_numbered(tmp_path, 3, limit=3)
    assert [(line.number, line.text) for line in last.items] == [(8, "line 8"), (9, "line 9"), (10, "line 10")]
    assert (last.attempt, last.first_number, last.last_number, last.num_found) == (3, 1, 10, None)
    assert [line.number for line in read_numbered(tmp_path, 1, from_line=4, limit=2).items] == [4, 5]
    assert [line.number for line in read_numbered(tmp_path, 1, before=4, limit=2).items] == [2, 3]
    assert read_numbered(tmp_path, 1, limit=0).last_number == 10


def test_lines__with_a_text_are_counted(tmp_path: Path) -> None:
    _write(tmp_path, "fine", "Error: one", "fine", "error: two", "fine")
    found = read_numbered(tmp_path, 1, find="ERROR", limit=1)
    assert ([line.number for line in found.items], found.num_found, found.last_number) == ([4], 2, 5)
    assert [line.number for line in read_numbered(tmp_path, 1, find="error", from_line=1).items] == [2, 4]


def test_lines__keep_their_numbers_when_old_ones_are_dropped(tmp_path: Path) -> None:
    _write(tmp_path, *(f"line {number}" for number in range(1, 101)), max_bytes=500)
    kept = read_numbered(tmp_path, 1)
    assert kept.last_number == 100
    assert kept.first_number is not None
    assert kept.first_number > 50
    assert all(line.text == f"line {line.number}" for line in kept.items)
    assert len(kept.items) == 100 - kept.first_number + 1


def test_lines__of_one_rank_have_numbers_of_their_own(tmp_path: Path) -> None:
    _write(tmp_path, "zero", rank=0)
    _write(tmp_path, "one", "two", rank=1)
    assert [(line.number, line.rank) for line in read_numbered(tmp_path, 1).items] == [(1, 0), (2, 1), (3, 1)]
    assert [line.number for line in read_numbered(tmp_path, 1, rank=1).items] == [1, 2]


def test_lines__of_an_attempt_that_wrote_nothing(tmp_path: Path) -> None:
    found = read_numbered(tmp_path / "none", 1, find="x")
    assert (found.items, found.first_number, found.last_number, found.num_found) == ([], None, 0, 0)
