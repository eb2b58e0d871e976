"""What a view shows, as a line for the shell or for Python. No line holds a token: `$XSAM_TOKEN` stands for it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from xsam.services.jobs.schemas import JobRead

_CURL = 'curl -s -H "Authorization: Bearer $XSAM_TOKEN" "$XSAM_URL{path}"'


@dataclass(frozen=True, slots=True)
class Copied:
    """The same read in three tongues."""

    command: str
    curl: str
    python: str


def of_job(job: JobRead) -> Copied:
    """Return how else a job is read."""
    return Copied(f"xsam show {job.id}", _CURL.format(path=f"/v1/jobs/{job.id}"), f"client.get({job.id!r})")


def of_jobs(filters: Mapping[str, Any]) -> Copied:
    """Return how else the jobs of a filter are listed."""
    words = ["xsam", "list"]
    pairs: list[tuple[str, str]] = []
    for name, value in filters.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            words += [f"--{name.replace('_', '-')}", shlex.quote(str(one))]
            pairs.append((name, str(one)))
    query = f"?{urlencode(pairs)}" if pairs else ""
    arguments = ", ".join(f"{name}={_python(value)}" for name, value in filters.items())
    return Copied(" ".join(words), _CURL.format(path=f"/v1/jobs{query}"), f"client.jobs({arguments})")


def _python(value: Any) -> str:
    return repr(list(value)) if isinstance(value, Sequence) and not isinstance(value, str) else repr(value)
