"""`xsam login, logout, whoami`: which service the commands talk to, and as whom."""

import sys
from typing import Annotated

import typer
from rich.markup import escape

from xsam.api.cli import credentials
from xsam.api.cli.credentials import Credentials
from xsam.api.cli.options import DEFAULT_URL, CommandError, UrlOption, connected, given_token, reported, resolved_url
from xsam.api.cli.show import out
from xsam.api.client import Client


def login(url: UrlOption = DEFAULT_URL) -> None:
    """Check a token and remember it with the service's address for the commands that follow.

    The token is asked for, or read from standard input where that is no terminal, unless XSAM_TOKEN or `xsam --token`
    has it.
    """
    with reported():
        known = credentials.load()
        where = resolved_url(url)
        token = given_token() or _asked_token()
        with Client(where, num_tries=3, token=token) as client:
            who = client.whoami()
        file = credentials.save(Credentials(where, {**known.tokens, where: token}))
        out.print(f"{escape(where)}: you are [bold]{who.user}[/], {_role(who.role, who.is_admin)} of team {who.team}.")
        out.print(f"Remembered in {escape(str(file))}, which only you can read.")


def _asked_token() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Token", hide_input=True)).strip()
    token = sys.stdin.readline().strip()  # getpass would warn that it can't hide what nobody types
    if not token:
        raise CommandError("no token on standard input; type it in a terminal, pipe it in, or set XSAM_TOKEN")
    return token


def logout(
    everything: Annotated[bool, typer.Option("--all", help="Of all services.")] = False, url: UrlOption = DEFAULT_URL
) -> None:
    """Forget a remembered token. It stays valid: `xsam token revoke` ends it."""
    with reported():
        known = credentials.load()
        where = resolved_url(url)
        kept = {} if everything else {one: token for one, token in known.tokens.items() if one != where}
        credentials.save(Credentials(known.url if known.url in kept else None, kept))
    out.print("Forgotten.")


def whoami(url: UrlOption = DEFAULT_URL) -> None:
    """Say who the service takes you for."""
    with connected(url) as client:
        who = client.whoami()
    out.print(f"[bold]{who.user}[/], {_role(who.role, who.is_admin)} of team {who.team}")


def _role(role: str, is_admin: bool) -> str:
    return "admin of the service, in the name" if is_admin else role
