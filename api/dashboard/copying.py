"""What a view shows, as a line for the shell or for Python. No line holds a token: `$XSAM_TOKEN` stands for it."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any
from urllib.parse import urlencode

from xsam.services.jobs.schemas import JobRead

_CLIENT_NAMES = {"state": "states", "label": "labels", "failure": "failures"}
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


def of_study(study_id: str) -> Copied:
    """Return how else a study is read."""
    python = f"client.studies.get({study_id!r})"
    return Copied(f"xsam study show {study_id}", _CURL.format(path=f"/v1/studies/{study_id}"), python)


def of_jobs(filters: Mapping[str, Any]) -> Copied:
    """Return how else the jobs of a filter are listed."""
    return _of_list("xsam list", "/v1/jobs", "client.page", filters)


def of_studies(filters: Mapping[str, Any]) -> Copied:
    """Return how else the studies of a filter are listed."""
    return _of_list("xsam study list", "/v1/studies", "client.studies.page", filters)


def of_queue(filters: Mapping[str, Any]) -> Copied:
    """Return how else a part of the queue is read."""
    return _of_list("xsam queue", "/v1/queue", "client.queue", filters)


def of_cluster() -> Copied:
    """Return how else the cluster is read."""
    return _of_list("xsam cluster", "/v1/cluster", "client.cluster", {})


def of_usage(filters: Mapping[str, Any]) -> Copied:
    """Return how else usage by day is read."""
    return _of_list("xsam usage", "/v1/usage", "client.usage", filters)


def _of_list(command: str, path: str, call: str, filters: Mapping[str, Any]) -> Copied:
    """Return a list in three tongues; the command's options are named as the query's parameters."""
    words = [command]
    pairs: list[tuple[str, str]] = []
    for name, value in filters.items():
        for one in value if isinstance(value, list) else [value]:
            # Joined, so that a value with a minus is no option.
            words.append(shlex.quote(f"--{name}={one}"))
            pairs.append((name, str(one)))
    query = f"?{urlencode(pairs)}" if pairs else ""
    arguments = ", ".join(f"{name}={_written(value)}" for name, value in _arguments(filters).items())
    return Copied(" ".join(words), _CURL.format(path=f"{path}{query}"), f"{call}({arguments})")


def _written(value: Any) -> str:
    return f"date({value.year}, {value.month}, {value.day})" if isinstance(value, date) else repr(value)


def _arguments(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the client's arguments, which call some of them by other names than the query does."""
    found = {_CLIENT_NAMES.get(name, name): value for name, value in filters.items()}
    if "labels" in found:
        found["labels"] = dict(one.split("=", 1) for one in found["labels"])
    return found
