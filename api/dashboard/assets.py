"""Static files of the page: read and packed once, named by what all of them hold, so that browsers keep them."""

import gzip
import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import Request, Response

_FOLDER = Path(__file__).parent / "static"
_LEVEL = 9
_KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it is sent."""

    kind: str
    plain: bytes
    packed: bytes


@dataclass(frozen=True, slots=True)
class Assets:
    """All files of one release.

    Args:
        digest: of the whole folder: files of two releases never meet on one page.
        files: by path below the folder.
    """

    digest: str
    files: Mapping[str, Asset]

    @property
    def base(self) -> str:
        """Where they are served."""
        return f"/assets/{self.digest}"

    def answer(self, request: Request, digest: str, name: str) -> Response | None:
        """Return a file as an answer; None where this release has no such file."""
        asset = self.files.get(name) if digest == self.digest else None
        if asset is None:
            return None
        headers = {"Cache-Control": _FOR_EVER, "Vary": "Accept-Encoding"}
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(asset.plain, media_type=asset.kind, headers=headers)
        return Response(asset.packed, media_type=asset.kind, headers={**headers, "Content-Encoding": "gzip"})


@cache
def load() -> Assets:
    """Read the folder that this code came with."""
    digest = hashlib.sha256()
    files = {}
    for path in sorted(one for one in _FOLDER.rglob("*") if one.is_file()):
        name, content = path.relative_to(_FOLDER).as_posix(), path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
        kind = _KINDS.get(path.suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        files[name] = Asset(kind, content, gzip.compress(content, _LEVEL, mtime=0))
    return Assets(digest.hexdigest()[:12], files)
