"""A file of the artifact store as an answer, where it lies in a bucket and so on no disk of this machine."""

import hashlib
from collections.abc import Iterator, Mapping
from email.utils import format_datetime
from http import HTTPStatus
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from xsam.services.errors import StorageError
from xsam.services.stores.folder import StoredFile
from xsam.services.stores.store import ArtifactStore

_CHUNK_BYTES = 2**20


def stored_response(
    store: ArtifactStore, file: StoredFile, request: Request, *, filename: str, headers: Mapping[str, str]
) -> Response:
    """Return a file, or the one range of it that is asked for; of several ranges the whole file."""
    state = f"{file.modified_at.timestamp()}-{file.size_bytes}-{file.version}"
    known = {
        "ETag": f'"{hashlib.sha256(state.encode()).hexdigest()[:32]}"',
        "Last-Modified": format_datetime(file.modified_at, usegmt=True),
    }
    answer = {**headers, **known, "Accept-Ranges": "bytes"}
    answer["Content-Disposition"] = f"attachment; filename*=utf-8''{quote(filename)}"
    start, end = 0, file.size_bytes
    asked = request.headers.get("range")
    if asked is not None and request.headers.get("if-range", known["ETag"]) in known.values():
        found = _range(asked, file.size_bytes)
        if found is not None:
            start, end = found
            if start >= end:
                refused = {"Content-Range": f"bytes */{file.size_bytes}"}
                return Response(status_code=HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers=refused)
            answer["Content-Range"] = f"bytes {start}-{end - 1}/{file.size_bytes}"
    answer["Content-Length"] = str(end - start)
    return StreamingResponse(
        _content(store, file, start, end),
        status_code=HTTPStatus.PARTIAL_CONTENT if "Content-Range" in answer else HTTPStatus.OK,
        headers=answer,
        media_type="application/octet-stream",
    )


def _range(asked: str, size: int) -> tuple[int, int] | None:
    """Return from where to where, an empty range if that can't be had; None if the whole file is to be sent."""
    unit, _, text = asked.replace(" ", "").partition("=")
    first, dash, last = text.partition("-")
    if unit.lower() != "bytes" or not dash or not (first or last) or not all(p.isascii() for p in (first, last)):
        return None
    if not all(part == "" or part.isdigit() for part in (first, last)):
        return None
    if not first:
        return max(size - int(last), 0), size
    return int(first), min(int(last) + 1, size) if last else size


def _content(store: ArtifactStore, file: StoredFile, start: int, end: int) -> Iterator[bytes]:
    with store.open(file.name) as source:
        source.seek(start)
        while start < end:
            chunk = source.read(min(_CHUNK_BYTES, end - start))
            start += len(chunk)
            if not chunk or (start == end and store.stat(file.name) != file):
                # What was sent is of two files; the connection breaks before its end, so that nobody keeps it.
                raise StorageError(f"{file.name} was replaced while it was sent")
            yield chunk
