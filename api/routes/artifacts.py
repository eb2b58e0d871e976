"""A job's files: list, download in ranges, and the card that says where the weights come from."""

from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import Path, Request
from fastapi.responses import FileResponse, Response

from xsam.api.http.dependencies import ReadSession, ServiceDep
from xsam.api.http.queries import JobId
from xsam.api.http.router import Router
from xsam.api.http.stored import stored_response
from xsam.services.artifacts import store
from xsam.services.artifacts.schemas import ArtifactRead, ArtifactsRead, ModelCard
from xsam.services.jobs import service as jobs
from xsam.services.reports import model_card
from xsam.services.retention import schemas as retention

router = Router("/v1/jobs/{job_id}", "artifacts")

ArtifactName = Annotated[
    str, Path(max_length=300, description="Name from the list.", examples=["weights/best.safetensors"])
]

_FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    206: {
        "description": "The bytes that `Range` asked for.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
}


@router.route("GET", "/artifacts", "List a job's files", refuses=("storage_error",))
def list_artifacts(job_id: JobId, session: ReadSession, service: ServiceDep) -> ArtifactsRead:
    """Return weights, checkpoints and logs that lie in the artifact store, and what of them is gone for good."""
    jobs.get(session, job_id)
    with service.counters.artifacts.time():
        found = store.list_files(service.store, job_id)
    items = [ArtifactRead.model_validate(file) for file in found]
    return ArtifactsRead(items=items, gone=retention.gone(session, job_id))


@router.route(
    "GET",
    "/artifacts/{name:path}",
    "Download a file",
    refuses=("storage_error",),
    answers=_FILE,
    response_class=FileResponse,
)
def download_artifact(
    job_id: JobId, name: ArtifactName, request: Request, session: ReadSession, service: ServiceDep
) -> Response:
    """Return a file's bytes; `Range` and `If-Range` are honoured, so that a broken download can go on."""
    jobs.get(session, job_id)
    with service.counters.artifacts.time():
        file = store.find_file(service.store, job_id, name)
    stored = store.prefix_of(job_id, file.name)
    filename = PurePosixPath(file.name).name
    # A browser saves it; if one should show it all the same, it is nobody's page.
    headers = {"Content-Security-Policy": "sandbox"}
    path = service.store.path(stored)
    if path is None:
        now = service.store.stat(stored)
        return stored_response(service.store, now, request, filename=filename, headers=headers)
    return FileResponse(path, media_type="application/octet-stream", filename=filename, headers=headers)


@router.route("GET", "/model-card", "Read the model card", refuses=("storage_error",))
def get_model_card(job_id: JobId, session: ReadSession, service: ServiceDep) -> ModelCard:
    """Return specification, result, versions and hardware: enough to run the job again."""
    job = jobs.get(session, job_id)
    return model_card.describe(session, job, service.store)
