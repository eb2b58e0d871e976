"""Options that several commands share, and how commands end."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.markup import escape

from xsam.api.cli import credentials
from xsam.api.cli.credentials import CredentialsError
from xsam.api.cli.show import err
from xsam.api.client import Client
from xsam.api.client.errors import ApiError, ClientError, UnreachableError
from xsam.services.jobs.states import FailureKind, JobState
from xsam.services.settings import Settings

LOCAL_URL = "http://127.0.0.1:8042"
DEFAULT_URL = ""
"""Stands for the service that `xsam login` remembered, or else the one on this machine."""

_given_token: ContextVar[str | None] = ContextVar("given_token", default=None)

UrlOption = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="XSAM_URL",
        help="Where the service listens.",
        show_default=f"where you logged in, or {LOCAL_URL}",
    ),
]
JobIdArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, as `xsam list` shows it.")]

StatesOption = Annotated[
    list[JobState] | None, typer.Option("--state", help="Only jobs in this state; may be repeated.")
]
NameOption = Annotated[str | None, typer.Option("--name", help="Only jobs of exactly this name.")]
QOption = Annotated[str | None, typer.Option("--q", help="Only jobs with this in their name, or so beginning ids.")]
UserOption = Annotated[str | None, typer.Option("--user", help="Only this user's jobs.")]
LabelsOption = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="KEY=VALUE", help="Only jobs with this label; may be repeated."),
]
OptimizerOption = Annotated[str | None, typer.Option("--optimizer", help="Only jobs with this optimizer.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Only jobs of this model.")]
DatasetOption = Annotated[str | None, typer.Option("--dataset", help="Only jobs on this dataset.")]
FailuresOption = Annotated[
    list[FailureKind] | None, typer.Option("--failure", help="Only jobs that failed like this; may be repeated.")
]
SinceOption = Annotated[str | None, typer.Option("--since", help="Submitted on this day, at this time, or later.")]
UntilOption = Annotated[str | None, typer.Option("--until", help="Submitted by the end of this day, before this time.")]


class CommandError(Exception):
    """A command can't do what it was asked; the message is for the person who typed it."""


@contextmanager
def connected(url: str) -> Iterator[Client]:
    """Open a client; its errors become short sentences and exit code 1."""
    with reported():
        where = resolved_url(url)
        token = given_token() or credentials.load().tokens.get(where)
        with Client(where, num_tries=3, token=token) as client:
            yield client


def resolved_url(url: str) -> str:
    """Return the URL that an option means.

    Raises:
        CredentialsError: the remembered one can't be read.
    """
    return (url or credentials.load().url or LOCAL_URL).rstrip("/")


def use_token(token: str | None) -> None:
    """Let the command that follows call with this token."""
    _given_token.set(token)


def given_token() -> str | None:
    """Return the token of `xsam --token` or XSAM_TOKEN."""
    return _given_token.get()


def key_values(pairs: Sequence[str], option: str) -> dict[str, str]:
    """Return `KEY=VALUE` texts as a mapping.

    Raises:
        typer.BadParameter: one of them is not such a text.
    """
    found = {}
    for pair in pairs:
        key, is_given, value = pair.partition("=")
        if not is_given or not key:
            raise typer.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint=option)
        found[key] = value
    return found


@contextmanager
def reported() -> Iterator[None]:
    """Turn expected errors into short sentences on stderr and exit code 1."""
    try:
        yield
    except (ClientError, CommandError, CredentialsError) as e:
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
    if isinstance(error, ApiError) and error.code == "unauthenticated":
        return [escape(f"{error}. Log in with `xsam login`, or set XSAM_TOKEN.")]
    if isinstance(error, UnreachableError):
        return [escape(f"{error}. Is the service running? Start it with `xsam serve`, or name it with --url.")]
    return [escape(str(error))]


def _about_field(field: str, message: str) -> str:
    return f"{field} {message}" if message.startswith(("must ", "is ")) else message
