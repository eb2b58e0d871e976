"""What every artifact store promises, by the same tests on a folder and on a bucket of a real S3 service."""

import io
import os
from pathlib import Path
from threading import Thread
from typing import BinaryIO

import pytest

from xsam.services.errors import StorageError
from xsam.services.stores.bucket import BucketStore
from xsam.services.stores.folder import FolderStore, Put
from xsam.services.stores.store import ArtifactStore, StorePlace

LARGE = os.urandom(12 * 2**20)
"""More than one part of an upload, and more than one read of a download."""


@pytest.fixture
def store(store_place: StorePlace) -> ArtifactStore:
    return store_place.open()


def names(store: ArtifactStore, prefix: str = "") -> list[str]:
    return [file.name for file in store.list(prefix)]


def fill(put: Put, *chosen: str) -> None:
    for name in chosen:
        put(name, io.BytesIO(LARGE))


def content(store: ArtifactStore, name: str) -> bytes:
    with store.open(name) as file:
        return file.read()


@pytest.mark.parametrize("size", [0, 1, len(LARGE)])
def test_file__comes_back_as_it_was_put(store: ArtifactStore, tmp_path: Path, size: int) -> None:
    source, target = tmp_path / "source", tmp_path / "some" / "where" / "target"
    source.write_bytes(LARGE[:size])
    store.put("jobs/a/weights/best.safetensors", source)
    store.put("bundles/code.tar.gz", source)
    assert content(store, "bundles/code.tar.gz") == LARGE[:size]
    store.put_bytes("jobs/a/weights/last.safetensors", LARGE[:size])
    store.get("jobs/a/weights/best.safetensors", target)
    assert target.read_bytes() == LARGE[:size] == content(store, "jobs/a/weights/last.safetensors")
    assert [path.name for path in target.parent.iterdir()] == ["target"]
    assert store.stat("jobs/a/weights/best.safetensors").size_bytes == size


def test_file__is_read_from_any_position(store: ArtifactStore) -> None:
    store.put_bytes("large", LARGE)
    with store.open("large") as file:
        file.seek(len(LARGE) - 5)
        assert file.read(100) == LARGE[-5:]
        assert file.seek(0, io.SEEK_END) == len(LARGE)
        file.seek(9 * 2**20)
        assert file.read(10) == LARGE[9 * 2**20 : 9 * 2**20 + 10]


def test_file__put_again_is_the_new_one(store: ArtifactStore) -> None:
    store.put_bytes("a/b", b"old and long")
    store.put_bytes("a/b", b"new")
    assert content(store, "a/b") == b"new"
    assert [(file.name, file.size_bytes) for file in store.list("a")] == [("a/b", 3)]


def test_list__is_what_lies_below_a_prefix_and_its_names_those_right_below(store: ArtifactStore) -> None:
    for name in ("jobs/b/x", "jobs/a/y/z", "jobs/a/x", "jobsy/c", "top"):
        store.put_bytes(name, b"1")
    assert names(store, "jobs/a") == ["jobs/a/x", "jobs/a/y/z"]
    assert names(store, "jobs") == ["jobs/a/x", "jobs/a/y/z", "jobs/b/x"]
    assert names(store) == ["jobs/a/x", "jobs/a/y/z", "jobs/b/x", "jobsy/c", "top"]
    assert list(store.names("jobs")) == ["a", "b"]
    assert list(store.names("jobs/a")) == ["x", "y"]
    assert names(store, "jobs/none") == list(store.names("jobs/none")) == []


def test_delete__takes_a_file_or_a_folder_and_nothing_else(store: ArtifactStore) -> None:
    for name in ("jobs/a/x", "jobs/a/y/z", "jobs/ab/x"):
        store.put_bytes(name, b"1")
    store.delete("jobs/a/x")
    assert names(store) == ["jobs/a/y/z", "jobs/ab/x"]
    store.delete("jobs/a")
    store.delete("jobs/a")
    store.delete("jobs/none/at/all")
    assert names(store) == ["jobs/ab/x"]


def test_set_aside__is_out_of_the_store_at_once_and_gone_when_the_trash_is_empty(store: ArtifactStore) -> None:
    for name in ("jobs/a/x", "jobs/b/x"):
        store.put_bytes(name, b"1")
    store.set_aside("jobs/a")
    store.set_aside("jobs/none")
    assert names(store, "jobs") == ["jobs/b/x"]
    store.empty_trash()
    assert names(store) == ["jobs/b/x"]


def test_delete_if_old__spares_what_was_just_stored(store: ArtifactStore) -> None:
    store.put_bytes("bundles/ab/x.tar.gz", b"1")
    store.delete_if_old("bundles/ab/x.tar.gz", older_than_s=3600)
    store.delete_if_old("bundles/none", older_than_s=0)
    assert names(store) == ["bundles/ab/x.tar.gz"]
    store.delete_if_old("bundles/ab/x.tar.gz", older_than_s=-3600)
    assert names(store, "bundles") == []


def test_missing_file__is_a_file_not_found_error(store: ArtifactStore, tmp_path: Path) -> None:
    for ask in (
        lambda: store.open("jobs/none"),
        lambda: store.stat("jobs/none"),
        lambda: store.get("jobs/none", tmp_path / "target"),
    ):
        with pytest.raises(FileNotFoundError):
            ask()
    assert not (tmp_path / "target").exists()


def test_local__is_a_folder_with_what_lies_there_now(store: ArtifactStore) -> None:
    store.put_bytes("logs/rank-0.log", b"one\n")
    folder = store.local("logs")
    assert (folder / "rank-0.log").read_bytes() == b"one\n"
    store.put_bytes("logs/rank-0.log", b"one\ntwo\n")
    store.put_bytes("logs/rank-1.log", b"other\n")
    assert store.local("logs") == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "rank-0.log": b"one\ntwo\n",
        "rank-1.log": b"other\n",
    }
    store.delete("logs")
    store.local("logs")
    assert not folder.exists() or not list(folder.iterdir())


def test_local__of_many_folders_keeps_few_copies(bucket_place: StorePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xsam.services.stores.bucket._MAX_COPIES", 2)
    store = bucket_place.open()
    for number in range(3):
        store.put_bytes(f"logs/{number}/rank-0.log", b"1")
    folders = [store.local(f"logs/{number}") for number in range(3)]
    assert [(folder / "rank-0.log").exists() for folder in folders] == [False, True, True]
    assert (store.local("logs/0") / "rank-0.log").exists()


def test_filled__has_all_or_nothing(store: ArtifactStore) -> None:
    with pytest.raises(StorageError), store.filled() as put:
        fill(put, "a/b", "..")
    assert names(store) == []
    with store.filled() as put:
        fill(put, "a/b", "c")
    assert names(store) == ["a/b", "c"]
    assert content(store, "a/b") == LARGE


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", "a//b"])
def test_filled__takes_no_name_that_leads_elsewhere(store: ArtifactStore, name: str) -> None:
    with pytest.raises(StorageError, match="allowed are relative paths"), store.filled() as put:
        put(name, io.BytesIO(b"1"))


def test_get__of_a_file_that_is_replaced_meanwhile_brings_one_of_the_two(store: ArtifactStore, tmp_path: Path) -> None:
    contents = [bytes([number]) * len(LARGE) for number in range(4)]
    store.put_bytes("w", contents[0])

    def replace() -> None:
        for one in contents[1:]:
            store.put_bytes("w", one)

    writer = Thread(target=replace)
    writer.start()
    while writer.is_alive():
        try:
            store.get("w", tmp_path / "target")
        except StorageError as e:
            assert "replaced" in str(e)  # noqa: PT017 - one of two outcomes
        else:
            assert (tmp_path / "target").read_bytes() in contents
    writer.join()


@pytest.mark.parametrize("later", [LARGE + b"more", b"rotated"], ids=["longer", "shorter"])
def test_get__of_a_log_that_is_replaced_meanwhile_brings_the_new_one(
    bucket_place: StorePlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: bytes
) -> None:
    store = bucket_place.open()
    store.put_bytes("log", LARGE)
    open_now, waiting = store.open, [later]

    def open_and_replace(name: str) -> BinaryIO:
        file = open_now(name)
        if waiting:
            store.put_bytes(name, waiting.pop())
        return file

    monkeypatch.setattr(store, "open", open_and_replace)
    store.get("log", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == later


def test_get__of_what_is_replaced_each_time_gives_up(
    bucket_place: StorePlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = bucket_place.open()
    store.put_bytes("log", b"0")
    open_now, contents = store.open, (bytes([number]) * 2 for number in range(100))

    def open_and_replace(name: str) -> BinaryIO:
        store.put_bytes(name, next(contents))
        return open_now(name)

    monkeypatch.setattr(store, "open", open_and_replace)
    with pytest.raises(StorageError, match="log was replaced each time"):
        store.get("log", tmp_path / "target")
    assert list(tmp_path.glob("*target*")) == []


def test_bucket__that_is_not_there_is_named_and_no_credential_is(s3_endpoint: str, tmp_path: Path) -> None:
    store = BucketStore("s3://no-such-bucket-here/prefix", s3_endpoint, tmp_path)
    with pytest.raises(StorageError, match=r"s3://no-such-bucket-here/prefix/x.*NO_SUCH_BUCKET") as caught:
        store.put_bytes("x", b"1")
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in repr(vars(store))


def test_room__of_a_folder_is_its_disks(tmp_path: Path, bucket_place: StorePlace) -> None:
    total, free = FolderStore(tmp_path).room()
    assert total > free > 0
    assert bucket_place.open().room() == (0, 0)
