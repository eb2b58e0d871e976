"""`xsam secret`: values that a team's jobs get as environment variables; they never stand among a command's words."""

import sys
from typing import Annotated

import typer
from rich.markup import escape

from xsam.api import formats
from xsam.api.cli.options import DEFAULT_URL, CommandError, UrlOption, connected
from xsam.api.cli.show import Output, OutputOption, out, show, table

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="As the job's environment variable is called.")]
TeamOption = Annotated[str | None, typer.Option(help="Of this team.", show_default="yours")]

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Keys and tokens that jobs get as environment variables (team's admins).",
)


@app.command("set")
def set_secret(name: NameArgument, team: TeamOption = None, url: UrlOption = DEFAULT_URL) -> None:
    """Set or replace a value, read from standard input or typed unseen; a job names it: `secrets: [NAME]`."""
    with connected(url) as client:
        made = client.admin.put_secret(team or client.whoami().team, name, _asked_value())
    out.print(f"Jobs of team {escape(made.team)} can name {escape(made.name)} now.")


@app.command("list")
def list_secrets(team: TeamOption = None, output: OutputOption = Output.TABLE, url: UrlOption = DEFAULT_URL) -> None:
    """List a team's secrets; their values are not shown."""
    with connected(url) as client:
        found = client.admin.secrets(team or client.whoami().team)
    rows = ((escape(one.name), escape(one.set_by), formats.age(one.set_at)) for one in found)
    show(output, found, lambda found: table(("name", "set by", "age"), rows, right=("age",)))


@app.command("delete")
def delete_secret(name: NameArgument, team: TeamOption = None, url: UrlOption = DEFAULT_URL) -> None:
    """Delete a value; jobs that name it fail when they start."""
    with connected(url) as client:
        client.admin.delete_secret(team or client.whoami().team, name)
    out.print(f"{escape(name)} is deleted; jobs that name it fail when they start.")


def _asked_value() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Value", hide_input=True))
    value = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    if not value:
        raise CommandError("no value on standard input; type it in a terminal, or pipe it in")
    return value
