"""The lab from Python: `client.lab`."""

from collections.abc import Mapping, Sequence
from typing import Any

from xsam.api.client.http import Http, document, once
from xsam.services.lab.schemas import FigureRead, FiguresRead, LabPreview, LabRunPage, LabRunRead
from xsam.services.lab.spec import LabSpec

_ROOT = "/v1/lab/runs"


class LabClient:
    """Makes the paper's figures and reads what they say.

    Every method raises ApiError where the server refuses: no such run, a state that does not allow it, a wrong field.

    Args:
        http: the client's connection.
    """

    def __init__(self, http: Http) -> None:
        self._http = http

    def figures(self) -> Sequence[FigureRead]:
        """Return the figures that can be made."""
        return self._http.read(FiguresRead, "GET", "/v1/lab/figures").items

    def submit(self, spec: LabSpec | Mapping[str, Any], *, idempotency_key: str | None = None) -> LabRunRead:
        """Begin a run of a figure.

        Args:
            spec: the specification; `{"figure": "3b"}` is a whole one.
            idempotency_key: names this submit; sent again, it returns the same run.
        """
        return self._http.read(LabRunRead, "POST", _ROOT, json=document(spec), headers=once(idempotency_key))

    def preview(self, spec: LabSpec | Mapping[str, Any]) -> LabPreview:
        """Return what a run would take; nothing is queued."""
        return self._http.read(LabPreview, "POST", f"{_ROOT}:preview", json=document(spec))

    def page(self, *, figure: str | None = None, cursor: str | None = None, limit: int = 50) -> LabRunPage:
        """Return one page of runs, newest first."""
        query = {"figure": figure, "cursor": cursor, "limit": limit}
        return self._http.read(LabRunPage, "GET", _ROOT, params=query)

    def get(self, run_id: str) -> LabRunRead:
        """Return a run and what it says so far."""
        return self._http.read(LabRunRead, "GET", f"{_ROOT}/{run_id}")

    def table(self, run_id: str) -> bytes:
        """Return what a run's picture is drawn from, as CSV."""
        return self._http.send("GET", f"{_ROOT}/{run_id}/table").content

    def picture(self, run_id: str) -> bytes:
        """Return a run's picture, as SVG."""
        return self._http.send("GET", f"{_ROOT}/{run_id}/picture").content

    def cancel(self, run_id: str) -> LabRunRead:
        """Cancel a run with its jobs and studies."""
        return self._http.read(LabRunRead, "POST", f"{_ROOT}/{run_id}/cancel")

    def resume(self, run_id: str) -> LabRunRead:
        """Try the failed jobs of a failed run once more."""
        return self._http.read(LabRunRead, "POST", f"{_ROOT}/{run_id}/resume")
