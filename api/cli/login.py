"""`xsam login, logout, whoami`: which service the commands talk to, and as whom."""

import platform
import sys
from typing import Annotated

import typer
from rich.markup import escape

from xsam.api.cli import credentials
from xsam.api.cli.credentials import Credentials
from xsam.api.cli.options import DEFAULT_URL, CommandError, UrlOption, connected, given_token, reported, resolved_url
from xsam.api.cli.show import err, out
from xsam.api.client import Client


def login(
    by_page: Annotated[
        bool | None,
        typer.Option(
            "--browser/--paste",
            help="Confirm a code at the service's page, or type a token.",
            show_default="browser in a terminal",
        ),
    ] = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Get a token and remember it with the service's address for the commands that follow.

    In a terminal a code is shown, which you confirm at the service's page, signed in there in whichever way. Without a
    terminal a token is read from standard input. XSAM_TOKEN or `xsam --token` go before both.
    """
    with reported():
        known = credentials.load()
        where = resolved_url(url)
        goes_to_page = sys.stdin.isatty() if by_page is None else by_page
        token = given_token() or (_confirmed_token(where) if goes_to_page else _asked_token())
        with Client(where, num_tries=3, token=token) as client:
            who = client.whoami()
        file = credentials.save(Credentials(where, {**known.tokens, where: token}))
        out.print(f"{escape(where)}: you are [bold]{who.user}[/], {_role(who.role, who.is_admin)} of team {who.team}.")
        out.print(f"Remembered in {escape(str(file))}, which only you can read.")


def _confirmed_token(where: str) -> str:
    with Client(where, num_tries=3) as client:
        begun = client.device_login.begin(_label())
        err.print(f"Open [bold]{escape(begun.verification_uri_complete)}[/] and confirm the code", highlight=False)
        err.print(f"\n    [bold]{escape(begun.user_code)}[/]\n", highlight=False)
        err.print(
            f"within {begun.expires_in // 60} minutes; `xsam login --paste` takes a token instead.", highlight=False
        )
        return client.device_login.wait(begun).access_token


def _label() -> str:
    return "".join(char for char in f"xsam on {platform.node() or 'a machine'}" if char.isprintable())[:100]


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
