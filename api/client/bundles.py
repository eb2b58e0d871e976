"""Code from the folder beside a specification: packed, uploaded once, and named in the specification instead."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from xsam.api.client.errors import ApiError
from xsam.api.client.http import Http
from xsam.services.bundles import archive
from xsam.services.bundles.schemas import BundleRead
from xsam.services.settings import get_settings

_GIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A bundle that the service has."""

    bundle: BundleRead
    left_out_secrets: tuple[str, ...]
    """Paths that looked like passwords or keys and were not sent."""
    is_new: bool


class BundlesClient:
    """The client's part about bundles. Every method raises ApiError where the server refuses.

    Args:
        http: the client's connections.
    """

    def __init__(self, http: Http) -> None:
        self._http = http

    def get(self, bundle_id: str) -> BundleRead:
        """Return what is known of a bundle.

        Raises:
            ApiError: the team has uploaded no such bundle.
        """
        return self._http.read(BundleRead, "GET", f"/v1/bundles/{bundle_id}")

    def upload(self, folder: Path) -> Uploaded:
        """Upload a folder, unless the service has its content already.

        Raises:
            ApiError: the service takes no code, or refuses this.
            InvalidRequestError: the folder is too large, by `XSAM_CODE__...` of this process; names the largest files.
        """
        limits = archive.limits_of(get_settings().code)
        found = archive.read(folder, limits)
        try:
            return Uploaded(self.get(found.id), found.left_out_secrets, is_new=False)
        except ApiError as e:
            if e.status != HTTPStatus.NOT_FOUND:
                raise
        packed = archive.pack(folder, limits)
        commit, is_dirty = _git_state(folder)
        query = {"commit": commit, "is_dirty": is_dirty if commit else None}
        path, headers = f"/v1/bundles/{packed.id}", {"Content-Type": "application/octet-stream"}
        read = self._http.read(BundleRead, "PUT", path, params=query, content=packed.packed, headers=headers)
        return Uploaded(read, packed.left_out_secrets, is_new=True)

    def resolve(self, spec: Mapping[str, Any], beside: Path) -> tuple[dict[str, Any], list[Uploaded]]:
        """Return a specification, of a job or a study, with a folder in `code` uploaded and replaced by its name.

        Args:
            spec: with `code: PATH` or `code: {path: PATH, root: FOLDER}`, in a study below `base`.
            beside: what relative paths start from.

        Raises:
            ApiError, InvalidRequestError: as `upload`.
            NotADirectoryError: there is no such folder.
        """
        found = dict(spec)
        uploaded: list[Uploaded] = []
        if isinstance(found.get("base"), Mapping):
            found["base"], uploaded = self.resolve(found["base"], beside)
        folder = folder_of(found, beside)
        if folder is not None:
            one = self.upload(folder)
            rest = {name: value for name, value in _parts(found["code"]).items() if name != "path"}
            found["code"] = {"bundle": one.bundle.id, **rest}
            uploaded.append(one)
        return found, uploaded


def folder_of(spec: Mapping[str, Any], beside: Path) -> Path | None:
    """Return the folder that a job's `code` names, None where it names none.

    Raises:
        NotADirectoryError: there is no such folder.
    """
    path = _parts(spec.get("code")).get("path")
    if path is None:
        return None
    folder = (beside / str(path)).resolve()
    if not folder.is_dir():
        raise NotADirectoryError(f"code is {str(path)!r}, but {folder} is no folder")
    return folder


def _parts(code: Any) -> dict[str, Any]:
    if isinstance(code, str):
        return {"path": code}
    return dict(code) if isinstance(code, Mapping) else {}


def _git_state(folder: Path) -> tuple[str | None, bool]:
    """Return the commit that a folder is at and whether files differ from it; None outside of a repository."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None, False
    return commit.strip(), bool(_git(folder, "status", "--porcelain", "--", "."))


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_S, check=False)  # noqa: S603 - our own words
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
