"""A job's folder on a node: uploaded as it is written, gone when nobody holds it, whoever was killed."""

import subprocess
import sys
from pathlib import Path

import pytest

from xsam.services.errors import StorageError
from xsam.services.stores.bucket import BucketStore
from xsam.services.stores.store import StorePlace
from xsam.workers.scratch import Scratch

LOG = "attempts/1/logs/rank-0.log"
_HOLD = """if True:
    import sys
    from pathlib import Path
    from xsam.services.stores.store import StorePlace
    from xsam.workers.scratch import Scratch
    root, url, endpoint = sys.argv[1:]
    held = Scratch(StorePlace(Path(root), url, endpoint), "job1", ())
    print("held", flush=True)
    sys.stdin.read()
"""


def write(place: StorePlace, name: str, text: str, job: str = "job1") -> Path:
    path = place.root / "jobs" / job / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def stored(place: StorePlace) -> dict[str, bytes]:
    store = place.open()
    found = {}
    for file in store.list("jobs/job1"):
        with store.open(file.name) as content:
            found[file.name.removeprefix("jobs/job1/")] = content.read()
    return found


def test_files__that_were_asked_for_are_uploaded_and_the_folder_is_gone(bucket_place: StorePlace) -> None:
    scratch = Scratch(bucket_place, "job1", ("attempts/1/logs/rank-0.*", "tensorboard/*"))
    write(bucket_place, LOG, "one\n")
    write(bucket_place, "tensorboard/events.1", "e")
    write(bucket_place, "checkpoints/tmp-x/model", "half")
    scratch.flush()
    assert stored(bucket_place) == {LOG: b"one\n", "tensorboard/events.1": b"e"}
    write(bucket_place, LOG, "one\ntwo\n")
    write(bucket_place, "attempts/1/logs/rank-1.log", "of another, which was killed\n")
    scratch.flush("attempts/1/logs/*")
    assert stored(bucket_place)["attempts/1/logs/rank-1.log"] == b"of another, which was killed\n"
    write(bucket_place, LOG, "one\ntwo\nthree\n")
    scratch.close()
    assert stored(bucket_place)[LOG] == b"one\ntwo\nthree\n"
    assert not (bucket_place.root / "jobs" / "job1").exists()
    assert list((bucket_place.root / "locks").iterdir()) == []


def test_bucket__that_is_away_for_a_while_costs_no_line(
    bucket_place: StorePlace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scratch = Scratch(bucket_place, "job1", ("attempts/1/logs/*",))
    write(bucket_place, LOG, "one\n")

    def refuse(store: BucketStore, name: str, source: Path) -> None:
        raise StorageError("away")

    with monkeypatch.context() as patched:
        patched.setattr(BucketStore, "put", refuse)
        scratch.flush()
        scratch.flush()
    assert caplog.text.count("can't be uploaded") == 1
    scratch.close()
    assert stored(bucket_place) == {LOG: b"one\n"}


def test_folder__stays_as_long_as_another_process_holds_it_and_goes_after_its_death(
    bucket_place: StorePlace,
) -> None:
    words = [str(bucket_place.root), str(bucket_place.url), str(bucket_place.endpoint)]
    other = subprocess.Popen(
        [sys.executable, "-c", _HOLD, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    path = write(bucket_place, LOG, "one\n")
    Scratch(bucket_place, "job1", ()).close()
    Scratch(bucket_place, "job2", ()).close()
    assert path.exists()
    other.kill()
    other.communicate()
    Scratch(bucket_place, "job2", ()).close()
    assert not path.exists(), "the next job clears up"


def test_shared_folder__is_left_alone(tmp_path: Path) -> None:
    place = StorePlace(tmp_path)
    path = write(place, LOG, "one\n")
    scratch = Scratch(place, "job1", ("attempts/1/logs/*",))
    scratch.flush()
    scratch.close()
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == [path]
