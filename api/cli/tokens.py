"""`xsam token`: make, list and revoke tokens, and get back in when the last admin's token is lost."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from xsam.api import formats
from xsam.api.cli.options import DEFAULT_URL, CommandError, UrlOption, connected, reported, settings_with
from xsam.api.cli.show import Output, OutputOption, out, show, table
from xsam.services.db import migrate
from xsam.services.db.session import Database
from xsam.services.teams import bootstrap
from xsam.services.teams.schemas import DEFAULT_LIFETIME_S, TokenRead

_DAY_S = 86_400.0

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help="Make, list and revoke tokens."
)


@app.command()
def create(  # noqa: PLR0913, PLR0917 - options of a command line
    user: Annotated[str | None, typer.Option(help="Who it is for (admins only).", show_default="you")] = None,
    team: Annotated[str | None, typer.Option(help="For which of their teams.", show_default="yours")] = None,
    label: Annotated[str | None, typer.Option(help="A word to tell it from others.")] = None,
    days: Annotated[
        float | None, typer.Option(help="Days until it ends.", show_default=f"{DEFAULT_LIFETIME_S / _DAY_S:g}")
    ] = None,
    no_expiry: Annotated[bool, typer.Option("--no-expiry", help="It ends only when it is revoked.")] = False,
    output: OutputOption = Output.TABLE,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Make a token and print it, this once."""
    lifetime_s = DEFAULT_LIFETIME_S if days is None else days * _DAY_S
    with connected(url) as client:
        made = client.admin.create_token(
            user=user, team=team, label=label, expires_in_s=None if no_expiry else lifetime_s
        )
    ends = "does not expire" if made.expires_at is None else f"expires {made.expires_at:%Y-%m-%d %H:%M} UTC"
    remark = f"Speaks for {escape(made.user)} in team {escape(made.team)} and {ends}. It is not shown again."
    show(output, made, lambda made: escape(made.token), remark=remark)


@app.command("list")
def list_tokens(output: OutputOption = Output.TABLE, url: UrlOption = DEFAULT_URL) -> None:
    """List the tokens you may manage, newest first."""
    with connected(url) as client:
        found = list(client.admin.tokens())
    columns = ("id", "begins", "user", "team", "label", "age", "last used", "state")
    show(output, found, lambda found: table(columns, map(_row, found)))


@app.command()
def revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As `xsam token list` shows it.")],
    url: UrlOption = DEFAULT_URL,
) -> None:
    """End a token now."""
    with connected(url) as client:
        client.admin.revoke_token(token_id)
    out.print(f"Token {escape(token_id)} is no longer valid.")


@app.command()
def recover(
    user: Annotated[str, typer.Option(help="Becomes an admin of the service.")] = bootstrap.FIRST_ADMIN,
    data_dir: Annotated[Path | None, typer.Option(help="The service's folder.", show_default="xsam-data")] = None,
    database_url: Annotated[
        str | None, typer.Option(help="The service's database.", show_default="SQLite in the data folder")
    ] = None,
) -> None:
    """Make an admin's token without asking the service, for whoever can open its database.

    For the case that every admin's token is lost or expired.
    """
    given: dict[str, Any] = {}
    if data_dir is not None:
        given["data_dir"] = data_dir
    if database_url is not None:
        given["database"] = {"url": database_url}
    with reported():
        settings = settings_with(given)
        if database_url is None and settings.database.url is None and not (settings.data_dir / "xsam.db").exists():
            raise CommandError(f"there is no database in {settings.data_dir.resolve()}; name it with --data-dir")
        database = Database(settings.database_url)
        try:
            if not migrate.is_current(database):
                raise CommandError(
                    "the database does not have this release's schema; `xsam serve` brings it up to date"
                )
            with database.unit_of_work() as session:
                text = bootstrap.admin_token(session, user, label="recovered")
        finally:
            database.dispose()
    out.print(text, markup=False)


def _row(token: TokenRead) -> tuple[str, ...]:
    age, used = formats.age(token.created_at), _ago(token.last_used_at)
    words = (token.id, f"{token.prefix}...", token.user, token.team, token.label or formats.NOTHING, age, used)
    return *map(escape, words), _state(token)


def _ago(instant: datetime | None) -> str:
    return "never" if instant is None else f"{formats.age(instant)} ago"


def _state(token: TokenRead) -> str:
    if token.revoked_at is not None:
        return "[red]revoked[/]"
    if token.expires_at is None:
        return "[green]valid[/]"
    left_s = (token.expires_at - datetime.now(token.expires_at.tzinfo)).total_seconds()
    return f"[green]valid[/] for {formats.duration(left_s)}" if left_s > 0 else "[red]expired[/]"
