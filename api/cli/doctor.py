"""`xsam doctor`: what is wrong with the service, seen from this host, and what to do about it."""

from collections.abc import Sequence
from typing import Annotated

import httpx
import typer
from pydantic import BaseModel
from rich.console import Group, RenderableType
from rich.markup import escape

from xsam.api.cli.options import reported, settings_with
from xsam.api.cli.show import Output, OutputOption, show, table
from xsam.api.http.health import VERSION
from xsam.services.reports.diagnosis import Finding, Level, diagnose
from xsam.services.settings import Settings

_STYLES = {Level.OK: "[green]ok[/]", Level.WARNING: "[yellow]warning[/]", Level.FAILURE: "[red]failure[/]"}
_WITHIN_S = 5.0


class Diagnosis(BaseModel):
    """All findings."""

    findings: list[Finding]


def doctor(
    api: Annotated[
        str | None, typer.Option(help="URL of an API to try.", show_default="XSAM_API__HOST and _PORT of this host")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Look at database, artifact store, dispatchers, nodes and API from this host, and say what to do.

    Exit code 1: a failure. It reads the XSAM_... settings that `xsam serve` reads, so run it as its user, with
    its environment.
    """
    with reported():
        settings = settings_with({})
        found = Diagnosis(findings=[*diagnose(settings), _api(api or _url(settings))])
    show(output, found, lambda found: _report(found.findings))
    if any(one.level is Level.FAILURE for one in found.findings):
        raise typer.Exit(1)


def _url(settings: Settings) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.api.host, settings.api.host)  # noqa: S104
    return f"http://{host}:{settings.api.port}"


def _api(url: str) -> Finding:
    """Try the probe that needs no token."""
    try:
        release = httpx.get(f"{url}/healthz", timeout=_WITHIN_S).json()["version"]
    except (httpx.HTTPError, ValueError, KeyError) as e:
        return Finding(
            about="API",
            level=Level.WARNING,
            text=f"nothing answers as it should at {url}: {type(e).__name__}",
            to_do="Where this host should have one: start `xsam serve`. Otherwise name one with --api.",
        )
    if release != VERSION:
        return Finding(
            about="API",
            level=Level.WARNING,
            text=f"{url} has release {release}, this host {VERSION}",
            to_do="Restart it, if it is to have this host's release.",
        )
    return Finding(about="API", level=Level.OK, text=f"{url} answers with release {release}")


def _report(findings: Sequence[Finding]) -> RenderableType:
    rows = ((escape(one.about), _STYLES[one.level], escape(one.text)) for one in findings)
    to_do = [f"[bold]{escape(one.about)}:[/] {escape(one.to_do)}" for one in findings if one.to_do]
    return Group(table(("about", "", "found"), rows, wrapped=("found",)), *to_do)
