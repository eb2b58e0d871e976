import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from xsam.services.artifacts.logs import MAX_LINE_CHARS, LogFollower, LogWriter, read_lines

OpenWriter = Callable[..., LogWriter]


@pytest.fixture
def open_writer(tmp_path: Path) -> Iterator[OpenWriter]:
    with ExitStack() as stack:

        def open_one(rank: int = 0, folder: Path = tmp_path, **options: int) -> LogWriter:
            return stack.enter_context(closing(LogWriter(folder, rank, **options)))

        yield open_one


def _texts(folder: Path, **options: int) -> list[str]:
    return [line.text for line in read_lines(folder, **options)]


def _fill(writer: LogWriter, start: int, stop: int) -> None:
    for number in range(start, stop):
        writer.write(f"line {number:04d}")


class TestWriter:
    def test_write__keeps_lines_ranks_and_order(self, tmp_path: Path, open_writer: OpenWriter) -> None:
        zero, one = open_writer(0), open_writer(1)
        zero.write("a\nb\n")
        one.write("c")
        zero.write("d")
        lines = list(read_lines(tmp_path))
        assert [(line.rank, line.text) for line in lines] == [(0, "a"), (0, "b"), (1, "c"), (0, "d")]
        assert all(line.at.endswith("Z") for line in lines)
        assert _texts(tmp_path, rank=1) == ["c"]

    def test_write__cuts_long_lines_and_takes_any_text(self, tmp_path: Path, open_writer: OpenWriter) -> None:
        writer = open_writer()
        writer.write("x" * (MAX_LINE_CHARS + 50))
        writer.write("naïve \ud800 \x00")
        writer.write("")
        long, odd = _texts(tmp_path)
        assert len(long) == MAX_LINE_CHARS
        assert odd.startswith("naïve")

    def test_write__never_holds_more_than_two_files_of_the_limit(self, tmp_path: Path, open_writer: OpenWriter) -> None:
        writer = open_writer(max_bytes=1000)
        _fill(writer, 0, 200)
        sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
        assert sorted(sizes) == ["rank-0.dropped", "rank-0.log", "rank-0.log.1"]
        assert max(sizes.values()) <= 1000
        assert _texts(tmp_path)[-1] == "line 0199"
        assert _texts(tmp_path) == sorted(_texts(tmp_path))

    def test_write__after_close_is_dropped_and_a_new_writer_appends(
        self, tmp_path: Path, open_writer: OpenWriter
    ) -> None:
        writer = open_writer()
        writer.write("first")
        writer.close()
        writer.write("dropped")
        open_writer().write("second")
        assert _texts(tmp_path) == ["first", "second"]

    def test_read__follows_no_link_and_waits_for_no_pipe(self, tmp_path: Path, open_writer: OpenWriter) -> None:
        open_writer(0).write("own")
        foreign = tmp_path / "foreign"
        foreign.write_text("2026-11-30T00:00:00.000000Z somebody else's\n")
        (tmp_path / "rank-1.log").symlink_to(foreign)
        os.mkfifo(tmp_path / "rank-2.log")
        assert _texts(tmp_path) == ["own"]
        assert [line.text for line in LogFollower(tmp_path).poll()] == ["own"]

    def test_write__from_many_threads_mixes_no_lines(self, tmp_path: Path, open_writer: OpenWriter) -> None:
        writer = open_writer()
        threads = [threading.Thread(target=_fill, args=(writer, n * 100, n * 100 + 100)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert sorted(_texts(tmp_path)) == [f"line {number:04d}" for number in range(400)]

    def test_write__without_room_loses_the_line_and_goes_on(self, tmp_path: Path, open_writer: OpenWriter) -> None:
        """A full disk must not end the job that prints."""
        writer = open_writer()
        writer.write("before")
        with Path("/dev/full").open("ab", buffering=0) as full:
            file, writer._file = writer._file, full
            writer.write("lost")
            writer._file = file
        writer.write("after")
        assert _texts(tmp_path) == ["before", "after"]


class TestFollower:
    def test_poll__of_a_folder_that_does_not_exist_yet_is_empty(self, tmp_path: Path, open_writer: OpenWriter) -> None:
        follower = LogFollower(tmp_path / "later")
        assert follower.poll() == []
        open_writer(folder=tmp_path / "later").write("now")
        assert [line.text for line in follower.poll()] == ["now"]
        assert follower.poll() == []

    def test_poll__waits_for_the_end_of_a_line(self, tmp_path: Path) -> None:
        follower = LogFollower(tmp_path)
        path = tmp_path / "rank-0.log"
        path.write_bytes(b"2026-01-01T00:00:00.000000Z half")
        assert follower.poll() == []
        with path.open("ab") as file:
            file.write(b" whole\n")
        assert [line.text for line in follower.poll()] == ["half whole"]

    def test_poll__merges_ranks_by_time_or_picks_one(self, tmp_path: Path) -> None:
        (tmp_path / "rank-0.log").write_text("2026-01-01T00:00:00.000001Z a\n2026-01-01T00:00:00.000003Z c\n")
        (tmp_path / "rank-1.log").write_text("2026-01-01T00:00:00.000002Z b\n")
        assert [line.text for line in LogFollower(tmp_path).poll()] == ["a", "b", "c"]
        assert [line.text for line in LogFollower(tmp_path, rank=1).poll()] == ["b"]

    def test_poll__loses_no_line_when_the_file_is_rotated_between_two_polls(
        self, tmp_path: Path, open_writer: OpenWriter
    ) -> None:
        writer = open_writer(max_bytes=2000)
        follower = LogFollower(tmp_path)
        seen: list[str] = []
        for start in range(0, 300, 10):  # a rotation every 51 lines, never two between polls
            _fill(writer, start, start + 10)
            seen += [line.text for line in follower.poll()]
        assert seen == [f"line {number:04d}" for number in range(300)]

    def test_poll__after_two_rotations_goes_on_with_what_is_left(self, tmp_path: Path, open_writer: OpenWriter) -> None:
        writer = open_writer(max_bytes=2000)
        follower = LogFollower(tmp_path)
        _fill(writer, 0, 10)
        follower.poll()
        _fill(writer, 10, 300)
        seen = [line.text for line in follower.poll()]
        assert seen == _texts(tmp_path)[-len(seen) :]
        assert seen[-1] == "line 0299"
        assert len(seen) == len(_texts(tmp_path))

    def test_poll__while_a_writer_rotates_sees_every_line_once(self, tmp_path: Path, open_writer: OpenWriter) -> None:
        writer = open_writer(max_bytes=20_000)
        follower = LogFollower(tmp_path)
        thread = threading.Thread(target=_fill, args=(writer, 0, 2000))
        seen: list[str] = []
        thread.start()
        while thread.is_alive():
            seen += [line.text for line in follower.poll()]
        seen += [line.text for line in follower.poll()]
        assert len(seen) == len(set(seen))
        assert seen == sorted(seen)
        assert seen[-1] == "line 1999"
