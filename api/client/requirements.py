"""Requirements from the file beside a specification: locked by the service, and named in the specification instead."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xsam.api.client.http import Http
from xsam.services.errors import InvalidRequestError
from xsam.services.requirements import lines
from xsam.services.requirements.schemas import RequirementsRead
from xsam.services.requirements.uv_lock import from_uv_lock

PATIENCE_S = 180.0
_LOOK_INTERVAL_S = 0.3


class RequirementsClient:
    """The client's part about requirements. Every method raises ApiError where the server refuses.

    Args:
        http: the client's connections.
    """

    def __init__(self, http: Http) -> None:
        self._http = http

    def get(self, requirements_id: str) -> RequirementsRead:
        """Return requirements and, once there is one, their lock."""
        return self._http.read(RequirementsRead, "GET", f"/v1/requirements/{requirements_id}")

    def lock(self, text: str, *, wait_s: float = PATIENCE_S) -> RequirementsRead:
        """Have the lines of a requirements file locked.

        Raises:
            InvalidRequestError: they can't be had beside the service's environment, or no dispatcher answered.
        """
        found = self._http.read(RequirementsRead, "POST", "/v1/requirements", json={"text": text})
        deadline = time.monotonic() + wait_s
        while found.state != "done" and time.monotonic() < deadline:
            time.sleep(_LOOK_INTERVAL_S)
            found = self.get(found.id)
        if found.state != "done":
            raise InvalidRequestError(f"requirements: no dispatcher has locked them within {wait_s:g} s", lines.FIELD)
        if found.error is not None:
            raise InvalidRequestError(found.error, lines.FIELD)
        return found

    def resolve(self, spec: Mapping[str, Any], beside: Path) -> tuple[dict[str, Any], RequirementsRead | None]:
        """Return a job's specification with the file or the lines in `requirements` locked and replaced by their name.

        Args:
            spec: with `requirements: FILE` (a requirements.txt, a uv.lock or a pylock.toml), or with a list of lines.
            beside: what relative paths start from.

        Raises:
            ApiError, InvalidRequestError: as `lock`.
            OSError: there is no such file.
        """
        text = text_of(spec, beside)
        if text is None:
            return dict(spec), None
        found = self.lock(text)
        return {**spec, "requirements": {"lock": found.lock_id}}, found


def text_of(spec: Mapping[str, Any], beside: Path) -> str | None:
    """Return the lines of the requirements that a specification has beside it; None where it names a lock or none.

    Raises:
        InvalidRequestError: the file is not of the kind that its name says.
        OSError: there is no such file.
    """
    given = spec.get("requirements")
    if isinstance(given, list) and all(isinstance(line, str) for line in given):
        return "".join(f"{line}\n" for line in given)
    if not isinstance(given, str):
        return None
    path = beside / given
    text = path.read_text(encoding="utf-8")
    if path.name == "uv.lock":
        return from_uv_lock(text)
    return lines.from_pylock(text) if path.suffix == ".toml" else text
