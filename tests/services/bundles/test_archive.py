"""Bundles are named by their content, leave out what they should, and are unpacked without trust."""

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from xsam.services.bundles.archive import Limits, digest_of, id_of, inspect, pack, unpack
from xsam.services.errors import InvalidRequestError

LIMITS = Limits(packed_bytes=100_000, unpacked_bytes=1_000_000, num_files=50)


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def paths_in(root: Path) -> list[str]:
    return [entry.path for entry in pack(root, LIMITS).entries]


def test_id__is_of_the_content_alone(tmp_path: Path) -> None:
    one = write(tmp_path / "one", **{"pkg__a.py": "x = 1", "train.py": "y"})
    two = write(tmp_path / "two", **{"train.py": "y", "pkg__a.py": "x = 1"})
    os.utime(two / "train.py", (1, 1))
    assert pack(one, LIMITS).id == pack(two, LIMITS).id
    assert pack(one, LIMITS).packed == pack(two, LIMITS).packed
    (two / "train.py").chmod(0o755)
    assert pack(one, LIMITS).id != pack(two, LIMITS).id
    write(one, **{"train.py": "z"})
    assert pack(one, LIMITS).id != pack(two, LIMITS).id


def test_id__does_not_depend_on_the_compressor(tmp_path: Path) -> None:
    bundle = pack(write(tmp_path, **{"a.py": "x = 1"}), LIMITS)
    again = gzip.compress(gzip.decompress(bundle.packed), compresslevel=1)
    assert again != bundle.packed
    assert id_of(inspect(again, LIMITS)) == bundle.id


@pytest.mark.parametrize(
    ("rules", "left_out"),
    [
        ("*.npz", {"raw.npz", "src/raw.npz"}),
        ("/data", {"data/x"}),
        ("data/", {"data/x", "src/data/y"}),
        ("src/data", {"src/data/y"}),
        ("**/y", {"src/data/y"}),
        ("*.npz\n!src/raw.npz", {"raw.npz"}),
        ("ra?.npz\n# a comment\n", {"raw.npz", "src/raw.npz"}),
        ("[a-r]*.npz", {"raw.npz", "src/raw.npz"}),
        ("src/**", {"src/raw.npz", "src/data/y"}),
    ],
)
@pytest.mark.parametrize("name", [".gitignore", ".xsamignore"])
def test_ignore_file__is_read_as_git_does(name: str, rules: str, left_out: set[str], tmp_path: Path) -> None:
    write(tmp_path, **{"a.py": "", "raw.npz": "", "data__x": "", "src__raw.npz": "", "src__data__y": "", name: rules})
    whole = {"a.py", "raw.npz", "data/x", "src/raw.npz", "src/data/y", name}
    assert set(paths_in(tmp_path)) == whole - left_out


def test_ignore_file__below_counts_for_its_own_folder(tmp_path: Path) -> None:
    write(tmp_path, **{"a.log": "", "src__a.log": "", "src__.gitignore": "*.log\n"})
    assert paths_in(tmp_path) == ["a.log", "src/.gitignore"]


def test_secrets_and_leftovers__stay_at_home(tmp_path: Path) -> None:
    names = [".env", "deploy__.env.prod", "key.pem", ".ssh__id_ed25519", ".git__config", "__pycache__".strip("_")]
    write(tmp_path, **{"a.py": "", **dict.fromkeys(names[:-1], "secret"), ".venv__x.py": "", "b.pyc": ""})
    bundle = pack(tmp_path, LIMITS)
    assert [entry.path for entry in bundle.entries] == ["a.py"]
    assert set(bundle.left_out_secrets) == {".env", "deploy/.env.prod", "key.pem", ".ssh/"}
    write(tmp_path, **{".xsamignore": "!deploy/.env.prod"})
    assert "deploy/.env.prod" in paths_in(tmp_path)


def test_size__is_refused_with_the_largest_files_named(tmp_path: Path) -> None:
    write(tmp_path, **{f"f{n}.bin": "x" * 100_000 * n for n in range(1, 8)})
    with pytest.raises(InvalidRequestError, match=r"3 MiB in 7 files; .* Largest: f7.bin .* f3.bin .*ignore"):
        pack(tmp_path, LIMITS)


def test_links__inside_become_files_and_outside_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "root", **{"a.py": "x = 1"})
    (root / "b.py").symlink_to("a.py")
    assert paths_in(root) == ["a.py", "b.py"]
    (root / "c.py").symlink_to("/etc/passwd")
    with pytest.raises(InvalidRequestError, match=r"c.py is a link to /etc/passwd"):
        pack(root, LIMITS)


def _tar(*members: tarfile.TarInfo, content: bytes = b"x") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for member in members:
            member.size = len(content) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _link(name: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    return member


@pytest.mark.parametrize(
    "packed",
    [
        lambda: _tar(tarfile.TarInfo("/etc/evil")),
        lambda: _tar(tarfile.TarInfo("../evil")),
        lambda: _tar(tarfile.TarInfo("a/../../evil")),
        lambda: _tar(tarfile.TarInfo("./a.py")),
        lambda: _tar(_link("a", tarfile.SYMTYPE)),
        lambda: _tar(_link("a", tarfile.LNKTYPE)),
        lambda: _tar(_link("a", tarfile.CHRTYPE)),
        lambda: _tar(_link("a", tarfile.DIRTYPE)),
        lambda: _tar(tarfile.TarInfo("a"), tarfile.TarInfo("a")),
        lambda: _tar(*[tarfile.TarInfo(f"f{n}") for n in range(51)]),
        lambda: _tar(tarfile.TarInfo("bomb"), content=b"\0" * 1_000_001),
        _tar,
        lambda: b"no tar at all",
        lambda: _tar(tarfile.TarInfo("a"), content=b"x" * 3000)[:-40],
    ],
)
def test_inspect__refuses_what_no_bundle_holds(packed: Callable[[], bytes]) -> None:
    with pytest.raises(InvalidRequestError):
        inspect(packed(), LIMITS)


def test_unpack__is_whole_read_only_and_once(tmp_path: Path) -> None:
    root = write(tmp_path / "root", **{"pkg__a.py": "x = 1"})
    bundle = pack(root, LIMITS)
    packed = tmp_path / "b.tar.gz"
    packed.write_bytes(bundle.packed)
    target = tmp_path / "node" / digest_of(bundle.id)
    assert unpack(packed, target, bundle.id) == target
    assert (target / "pkg" / "a.py").stat().st_mode & 0o222 == 0
    packed.unlink()
    assert unpack(packed, target, bundle.id) == target
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_unpack__leaves_nothing_of_another_content(tmp_path: Path) -> None:
    bundle = pack(write(tmp_path / "root", **{"a.py": "x = 1"}), LIMITS)
    packed = tmp_path / "b.tar.gz"
    packed.write_bytes(bundle.packed)
    other = "sha256:" + 64 * "0"
    with pytest.raises(InvalidRequestError, match="another sum"):
        unpack(packed, tmp_path / "node" / "x", other)
    assert list((tmp_path / "node").iterdir()) == []
