"""Options that several commands share, and how commands end."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from api.client import Client
from api.client_errors import ApiError, ClientError, UnreachableError
from services.settings import Settings

DEFAULT_URL = "http://127.0.0.1:8042"

out = Console(highlight=False, soft_wrap=True)
"""What was asked for."""
err = Console(stderr=True, highlight=False, soft_wrap=True)
"""Errors and remarks, which must not get into a pipe."""


class Output(StrEnum):
    """How an answer is written."""

    TABLE = "table"
    JSON = "json"


UrlOption = Annotated[str, typer.Option("--url", envvar="XSAM_URL", help="Where the service listens.")]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="Tables for people, JSON for programs.")]
JobIdArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, as `xsam list` shows it.")]


class CommandError(Exception):
    """A command can't do what it was asked; the message is for the person who typed it."""


@contextmanager
def connected(url: str) -> Iterator[Client]:
    """Open a client; its errors become short sentences and exit code 1."""
    with reported(), Client(url, num_tries=3) as client:
        yield client


@contextmanager
def reported() -> Iterator[None]:
    """Turn expected errors into short sentences on stderr and exit code 1."""
    try:
        yield
    except (ClientError, CommandError) as e:
        for line in _sentences(e):
            err.print(f"[red]Error:[/] {line}")
        raise typer.Exit(1) from e


def settings_with(given: Mapping[str, Any]) -> Settings:
    """Return the environment's settings with some given otherwise.

    Args:
        given: fields of Settings; a mapping changes single fields of a group, a group replaces it.

    Raises:
        CommandError: a setting is not valid; the message names it.
    """
    try:
        return Settings(**given)
    except ValidationError as e:
        problems = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in e.errors(include_input=False)]
        raise CommandError(f"the settings are not valid: {'; '.join(problems)}") from e


def _sentences(error: Exception) -> list[str]:
    if isinstance(error, ApiError) and error.fields:
        return [escape(_about_field(field.field, field.message)) for field in error.fields]
    if isinstance(error, UnreachableError):
        return [escape(f"{error}. Is the service running? Start it with `xsam serve`, or name it with --url.")]
    return [escape(str(error))]


def _about_field(field: str, message: str) -> str:
    return f"{field} {message}" if message.startswith(("must ", "is ")) else message
