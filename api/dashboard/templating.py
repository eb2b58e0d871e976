"""From a template to an answer: a whole page, or the one part of it that a script asks for."""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from xsam.api.dashboard import assets, navigation
from xsam.api.dashboard.filters import FILTERS
from xsam.api.dashboard.security import HTML_HEADERS
from xsam.api.http.health import VERSION

PART = "x-part"
"""The header that asks for one block of a template; the answer carries it, too."""


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(FILTERS)
    environment.globals.update(
        entries=navigation.ENTRIES,
        admin_entries=navigation.ADMIN_ENTRIES,
        assets=assets.load().base,
        version=VERSION,
    )
    environment.globals["marks"] = environment.get_template("parts/marks.html").module
    return environment


def render(
    request: Request, template: str, context: Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] = {}
) -> HTMLResponse:
    """Return the answer that shows a template.

    Args:
        request: says which part of the page is wanted; by default all of it.
        template: its path below the folder.
        context: what it shows.
        status: of the answer.
        headers: of the answer, beside those of every HTML answer.
    """
    loaded = _environment().get_template(template)
    values = {
        "active": navigation.active(request.url.path),
        "path": request.url.path,
        "visitor": getattr(request.state, "visitor", None),
        **context,
    }
    wanted = request.headers.get(PART)
    sent = {**HTML_HEADERS, **headers}
    if wanted is None or wanted not in loaded.blocks:
        return HTMLResponse(loaded.render(values), status_code=status, headers=sent)
    made = loaded.new_context(dict(values))
    title = _joined(loaded.blocks["title"](made)) if "title" in loaded.blocks else ""
    sent |= {"X-Part": wanted, "X-Title": quote(title.strip())}
    return HTMLResponse(_joined(loaded.blocks[wanted](made)), status_code=status, headers=sent)


def _joined(pieces: Iterable[str]) -> str:
    return "".join(pieces)
