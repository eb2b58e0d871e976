"""Jobs beside each other: their curves, what they were told, what came of it."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import Field, StringConstraints
from sqlalchemy.orm import Session

from xsam.api.dashboard.filters import param, plain
from xsam.api.dashboard.pages import Page, PageDep, Pages, ViewQuery
from xsam.api.formats import NOTHING, percent
from xsam.api.http.dependencies import ReadSession
from xsam.services.errors import NotFoundError
from xsam.services.jobs import service as jobs
from xsam.services.jobs.schemas import JobRead

MOST = 12
_Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{1,32}$")]
_NO_PARAMETERS = frozenset({"name", "labels", "priority"})

pages = Pages()


class CompareView(ViewQuery):
    """Which jobs are compared, and how."""

    id: Annotated[list[_Id], Field(default_factory=list, max_length=MOST)]
    x: Annotated[str, Field(pattern="^(epoch|step|time|evals)$")] = "epoch"
    y: Annotated[str, Field(pattern="^(eval_accuracy|eval_loss|train_loss|train_accuracy|lr)$")] = "eval_accuracy"
    smooth: Annotated[float, Field(ge=0, lt=1)] = 0.0
    diff: bool = True
    """Whether only parameters that differ are shown."""
    add: Annotated[str, Field(max_length=32)] | None = None
    """Another job to compare with."""


@pages.get("/jobs/compare")
def compare_jobs(page: PageDep, session: ReadSession, view: Annotated[CompareView, Query()]) -> Response:
    """Show up to twelve jobs beside each other."""
    ids = list(dict.fromkeys([*view.id, *([view.add] if view.add else [])]))[:MOST]
    found = [_visible(page, session, job_id) for job_id in ids]
    parameters = _table([_flat(job.spec.model_dump(mode="json")) for job in found])
    differing = [name for name, values in parameters.items() if len(set(values)) > 1]
    results = _results(found)
    shown = {name: parameters[name] for name in (differing if view.diff else parameters)}
    state = {**view.changed(), "id": ids, "add": None}
    return page.render(
        "compare.html",
        view=view,
        state=state,
        jobs=found,
        parameters=shown,
        differing=differing,
        results=results,
        pairs=_pairs(found),
        markdown=_markdown(found, {**results, **{name: parameters[name] for name in differing}}),
    )


def _visible(page: Page, session: Session, job_id: str) -> JobRead:
    job = jobs.get(session, job_id)
    if not page.principal.sees(job.team):
        raise NotFoundError(f"no job {job_id}", field="job_id")
    return JobRead.of(job)


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in document.items():
        if not prefix and name in _NO_PARAMETERS:
            continue
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = param(value)
    return found


def _table(documents: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    names = dict.fromkeys(name for document in documents for name in document)
    return {name: [document.get(name, NOTHING) for document in documents] for name in names}


def _results(found: Sequence[JobRead]) -> dict[str, list[str]]:
    def of(job: JobRead, field: str, write: Any) -> str:
        return NOTHING if job.summary is None else write(getattr(job.summary, field))

    return {
        "state": [str(job.state) for job in found],
        "epochs": [f"{job.progress.epochs_done}/{job.progress.num_epochs}" for job in found],
        "last accuracy": [of(job, "final_accuracy", percent) for job in found],
        "best accuracy": [of(job, "best_accuracy", percent) for job in found],
        "last loss": [of(job, "final_eval_loss", param) for job in found],
        "mean alpha*": [of(job, "mean_alpha", param) for job in found],
        "gradient evaluations": [of(job, "grad_evals", param) for job in found],
        "seconds of training": [of(job, "train_s", param) for job in found],
    }


def _pairs(found: Sequence[JobRead]) -> list[tuple[str, str]]:
    """Return the pairs that differ in the optimizer alone, the seed included: their difference is the method's."""

    def rest(job: JobRead) -> dict[str, Any]:
        return job.spec.model_dump(exclude={"optimizer", *_NO_PARAMETERS})

    return [
        (one.name or one.id, other.name or other.id)
        for i, one in enumerate(found)
        for other in found[i + 1 :]
        if one.spec.optimizer != other.spec.optimizer and rest(one) == rest(other)
    ]


def _markdown(found: Sequence[JobRead], rows: Mapping[str, Sequence[str]]) -> str:
    head = ["", *(plain(job.name or job.id).replace("|", "\\|") for job in found)]
    lines = [_line(head), _line(["---"] * len(head))]
    lines += [_line([name, *(value.replace("|", "\\|") for value in values)]) for name, values in rows.items()]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
