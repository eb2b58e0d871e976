"""Everything that browsers ask for: the views, the files they use, and where the address alone leads."""

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from xsam.api.dashboard import assets
from xsam.api.dashboard.pages import Pages
from xsam.api.dashboard.views import (
    audit,
    cluster,
    compare,
    device,
    home,
    job,
    jobs,
    lab,
    leaving,
    new_figure,
    new_job,
    new_study,
    queue,
    sign_in,
    single_sign_on,
    studies,
    study,
    teams,
    tokens,
    usage,
)
from xsam.services.errors import NotFoundError

_frame = Pages()

VIEWS = (
    _frame,
    sign_in.pages,
    single_sign_on.pages,
    home.pages,
    jobs.pages,
    compare.pages,
    new_job.pages,
    job.pages,  # after those whose paths look like a job's
    new_study.pages,
    studies.pages,
    study.pages,
    new_figure.pages,
    lab.pages,
    queue.pages,
    cluster.pages,
    usage.pages,
    teams.pages,
    leaving.pages,
    tokens.pages,
    device.pages,
    audit.pages,
)
"""A new view is a module in `views/` with its `pages`, listed here, and a template."""


@_frame.get("/")
async def go_home(request: Request) -> Response:
    """Lead whoever opens the service's address in a browser to its first view."""
    if "text/html" not in request.headers.get("accept", ""):
        raise NotFoundError("Nothing is served at /; the API is below /v1, the page at /home")
    return RedirectResponse("/home")


@_frame.get("/assets/{digest}/{name:path}")
async def get_asset(request: Request, digest: str, name: str) -> Response:
    """Return a file of the page; it needs no token, and holds nothing of anybody."""
    found = assets.load().answer(request, digest, name)
    if found is None:
        raise NotFoundError("Nothing is served here; the page is of another release: reload it")
    return found
