"""A bundle as bytes: made of a folder, named by its content, and unpacked without trust in who made it."""

import gzip
import hashlib
import io
import os
import secrets
import shutil
import stat
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from xsam.services.bundles.ignoring import ALWAYS_OUT, SECRETS, Rule, is_left_out, read_rules, rules_of
from xsam.services.errors import InvalidRequestError
from xsam.services.settings import CodeSettings

NUM_NAMED = 5
"""So many of the largest files are named when a bundle is too large."""
_PREFIX = "sha256:"
_MIB = 2**20
_READ_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """What a bundle may be."""

    packed_bytes: int
    unpacked_bytes: int
    num_files: int


def limits_of(settings: CodeSettings) -> Limits:
    """Return what a bundle may be by the settings."""
    return Limits(settings.max_packed_bytes, settings.max_unpacked_bytes, settings.max_files)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a bundle."""

    path: str
    """Below the root, with `/`."""
    is_executable: bool
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """A packed folder.

    Args:
        id: `sha256:...` over the sorted list of paths, modes and contents; the compressor does not matter.
        packed: a gzipped tar.
        entries: the files in order.
        left_out_secrets: paths that looked like secrets.
    """

    id: str
    packed: bytes
    entries: tuple[Entry, ...]
    left_out_secrets: tuple[str, ...] = ()


def id_of(entries: Sequence[Entry]) -> str:
    """Return the id of a bundle with these files."""
    digest = hashlib.sha256()
    for entry in sorted(entries, key=lambda entry: entry.path):
        digest.update(f"{entry.path}\0{'x' if entry.is_executable else '-'}\0{entry.sha256}\n".encode())
    return _PREFIX + digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Folder:
    """What of a folder belongs into a bundle, and which one that would be; see `Bundle`."""

    id: str
    entries: tuple[Entry, ...]
    left_out_secrets: tuple[str, ...]


def read(root: Path, limits: Limits) -> Folder:
    """Read a folder, without what its ignore files name, what is never wanted, and what looks like a secret.

    Raises:
        InvalidRequestError: it holds too much; names the largest files. Or nothing, or a link out of it.
    """
    paths, secret = _walk(root)
    _check_size({path: (root / path).stat().st_size for path in paths}, limits)
    if not paths:
        raise InvalidRequestError(f"code: {root} holds no file that belongs into a bundle", field="code")
    entries = tuple(_entry(root, root / path) for path in paths)
    return Folder(id_of(entries), entries, tuple(secret))


def pack(root: Path, limits: Limits) -> Bundle:
    """Pack what `read` finds, which takes several times as long.

    Raises:
        InvalidRequestError: as `read`; or it is too large when packed.
    """
    found = read(root, limits)
    entries: list[Entry] = []
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, compresslevel=6) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for entry in found.entries:
            content = (root / entry.path).read_bytes()  # which may have changed since
            digest = hashlib.sha256(content).hexdigest()
            entries.append(Entry(entry.path, entry.is_executable, digest, len(content)))
            member = tarfile.TarInfo(entry.path)
            member.size, member.mode = len(content), 0o755 if entry.is_executable else 0o644
            tar.addfile(member, io.BytesIO(content))
    if buffer.tell() > limits.packed_bytes:
        raise InvalidRequestError(
            f"code: {buffer.tell() / _MIB:.1f} MiB packed; allowed are {limits.packed_bytes / _MIB:g} MiB. "
            f"{_largest({entry.path: entry.size_bytes for entry in entries})}",
            field="code",
        )
    return Bundle(id_of(entries), buffer.getvalue(), tuple(entries), found.left_out_secrets)


def inspect(packed: bytes, limits: Limits) -> tuple[Entry, ...]:
    """Return the files of a packed bundle, read through without writing any.

    Raises:
        InvalidRequestError: it is no gzipped tar of plain files below its root, or too large.
    """
    entries: list[Entry] = []
    unpacked = 0
    try:
        with (
            gzip.GzipFile(fileobj=io.BytesIO(packed)) as zipped,
            tarfile.open(fileobj=_Bounded(zipped, limits), mode="r|") as tar,  # type: ignore[call-overload]
        ):
            for member in tar:
                _check_member(member)
                unpacked += member.size
                if len(entries) >= limits.num_files or unpacked > limits.unpacked_bytes:
                    raise InvalidRequestError(
                        f"the bundle holds more than {limits.num_files:,} files or "
                        f"{limits.unpacked_bytes / _MIB:g} MiB; allowed is less",
                        field="bundle",
                    )
                file = tar.extractfile(member)
                content = file.read() if file is not None else b""
                digest = hashlib.sha256(content).hexdigest()
                entries.append(Entry(member.name, bool(member.mode & stat.S_IXUSR), digest, len(content)))
    except (OSError, EOFError, tarfile.TarError, ValueError) as e:
        raise InvalidRequestError(f"the bundle is not a gzipped tar: {e}", field="bundle") from e
    paths = [entry.path for entry in entries]
    if not entries or len(set(paths)) != len(paths):
        raise InvalidRequestError("the bundle holds no file, or two of one name", field="bundle")
    return tuple(entries)


def unpack(packed: Path, target: Path, bundle_id: str) -> Path:
    """Unpack a bundle once: whole and verified at `target`, or not at all; return `target`.

    Any number of processes may do so at once; the first one's folder stays. Files are read-only.

    Raises:
        InvalidRequestError: the content is not what the id says.
    """
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if target.parent.stat().st_uid != os.getuid():
        raise InvalidRequestError(f"{target.parent} belongs to another user; nothing is imported from there", "code")
    if target.is_dir():
        return target
    scratch = target.with_name(f".{target.name}-{secrets.token_hex(6)}")
    try:
        _extract(packed, scratch, bundle_id)
        scratch.rename(target)
    except OSError:
        if not target.is_dir():  # another process was first
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _extract(packed: Path, scratch: Path, bundle_id: str) -> None:
    paths: list[Path] = []
    # Not `extractall`: its filters came with a later Python 3.11 than Debian's, and these checks are stricter.
    with tarfile.open(packed, mode="r:gz") as tar:
        for member in tar:
            _check_member(member)
            path = scratch / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with cast("IO[bytes]", tar.extractfile(member)) as source, path.open("wb") as file:
                shutil.copyfileobj(source, file)
            path.chmod(0o555 if member.mode & stat.S_IXUSR else 0o444)
            paths.append(path)
    if id_of([_entry(scratch, path) for path in paths]) != bundle_id:
        raise InvalidRequestError(f"{packed} is not bundle {bundle_id}: its content has another sum", field="code")


def digest_of(bundle_id: str) -> str:
    """Return the hexadecimal part of an id; safe as a file name, since the id is checked where it comes in."""
    return bundle_id.removeprefix(_PREFIX)


def _walk(root: Path) -> tuple[list[str], list[str]]:
    """Return the files that belong into a bundle, sorted, and those left out as secrets."""
    walk = _Walk(root)
    walk.look(PurePosixPath(), [])
    return sorted(walk.found), walk.secret


class _Walk:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._always = rules_of(ALWAYS_OUT, PurePosixPath())
        self._secrets = rules_of(SECRETS, PurePosixPath())
        self.found: list[str] = []
        self.secret: list[str] = []

    def look(self, folder: PurePosixPath, rules: list[Rule]) -> None:
        """Take in a folder and those below it."""
        rules = [*rules, *read_rules(self._root, folder)]
        with os.scandir(self._root / folder) as found:
            items = list(found)
        for item in items:
            path, is_folder = folder / item.name, item.is_dir(follow_symlinks=False)
            if any(is_left_out(some, path, is_folder=is_folder) for some in (self._always, rules)):
                continue
            is_kept = any(rule.is_kept and rule.matches(path, is_folder=is_folder) for rule in rules)
            if not is_kept and is_left_out(self._secrets, path, is_folder=is_folder):
                self.secret.append(path.as_posix() + ("/" if is_folder else ""))
            elif is_folder:
                self.look(path, rules)
            elif self._is_file(path):
                self.found.append(path.as_posix())

    def _is_file(self, path: PurePosixPath) -> bool:
        """Return whether a path is a file, or a link to one inside, which the bundle holds as a file."""
        full = self._root / path
        if full.is_symlink():
            _check_link(self._root, path)
        return full.is_file()


def _check_link(root: Path, path: PurePosixPath) -> None:
    """Links to files inside are followed, so that a bundle holds plain files only."""
    target = (root / path).resolve()
    if not target.is_relative_to(root.resolve()):
        raise InvalidRequestError(
            f"code: {path} is a link to {target}, outside of the folder; list it in .xsamignore or copy the file",
            field="code",
        )


def _check_size(sizes: dict[str, int], limits: Limits) -> None:
    total = sum(sizes.values())
    if total > limits.unpacked_bytes or len(sizes) > limits.num_files:
        raise InvalidRequestError(
            f"code: {total / _MIB:.0f} MiB in {len(sizes):,} files; allowed are "
            f"{limits.unpacked_bytes / _MIB:g} MiB in {limits.num_files:,} files. {_largest(sizes)}",
            field="code",
        )


def _largest(sizes: dict[str, int]) -> str:
    largest = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:NUM_NAMED]
    named = ", ".join(f"{path} {size / _MIB:.1f} MiB" for path, size in largest)
    return f"Largest: {named}. List them in .xsamignore, or put data below the dataset root."


def _check_member(member: tarfile.TarInfo) -> None:
    path = PurePosixPath(member.name)
    is_clean = member.name == path.as_posix() and not path.is_absolute() and ".." not in path.parts and path.parts
    if not member.isreg() or not is_clean or "\0" in member.name or "\\" in member.name:
        raise InvalidRequestError(
            f"the bundle holds {member.name[:200]!r}; allowed are plain files below its root", field="bundle"
        )
    try:
        member.name.encode()
    except UnicodeEncodeError as e:
        raise InvalidRequestError(f"the bundle holds {member.name[:200]!r}, whose name is no UTF-8", "bundle") from e


def _entry(root: Path, path: Path) -> Entry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    status = path.stat()
    is_executable = bool(status.st_mode & stat.S_IXUSR)
    return Entry(path.relative_to(root).as_posix(), is_executable, digest, status.st_size)


class _Bounded:
    """A stream that gives up where a bomb would go on: headers and padding add little to the files' sizes."""

    def __init__(self, stream: gzip.GzipFile, limits: Limits) -> None:
        self._stream = stream
        self._left = limits.unpacked_bytes + limits.num_files * 4096 + _READ_BYTES

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(_READ_BYTES if size < 0 else size)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("it unpacks to more than is allowed")
        return data
