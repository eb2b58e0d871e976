"""`xsam team disable|enable|delete` and `xsam user`: who leaves, and what they leave behind, said before it is done."""

from collections.abc import Callable, Sequence
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from xsam.api import formats
from xsam.api.cli.options import DEFAULT_URL, UrlOption, connected
from xsam.api.cli.show import Output, OutputOption, err, out, show, table
from xsam.services.reports.leftovers import LeftoversRead
from xsam.services.teams.roles import Role
from xsam.services.teams.schemas import DisabledRead, UserRead

TeamArgument = Annotated[str, typer.Argument(metavar="TEAM", help="The team's name.")]
UserArgument = Annotated[str, typer.Argument(metavar="USER", help="The user's name.")]
CancelOption = Annotated[
    bool, typer.Option("--cancel-jobs", help="Cancel jobs and studies that have not ended; otherwise they go on.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]

users = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help="Users of the service (admins)."
)


def disable_team(
    name: TeamArgument, cancel_jobs: CancelOption = False, is_sure: YesOption = False, url: UrlOption = DEFAULT_URL
) -> None:
    """End a team's tokens and sessions and refuse it new jobs; says before what the team has."""
    with connected(url) as client:
        _say(f"Team {name}", client.admin.team_leftovers(name), members="members")
        _ask(f"Disable team {name}?", is_sure)
        _disable(lambda: client.admin.disable_team(name, cancel_jobs=cancel_jobs))
    out.print(f"Team {escape(name)} is disabled.")


def enable_team(name: TeamArgument, url: UrlOption = DEFAULT_URL) -> None:
    """Let a disabled team take jobs again, or bring a deleted one back; its members need new tokens."""
    with connected(url) as client:
        client.admin.enable_team(name)
    out.print(f"Team {escape(name)} takes jobs; its members need new tokens.")


def delete_team(name: TeamArgument, is_sure: YesOption = False, url: UrlOption = DEFAULT_URL) -> None:
    """Disable a team for good: no members, in no list; what it did stays. Refused while it has jobs to come."""
    with connected(url) as client:
        _say(f"Team {name}", client.admin.team_leftovers(name), members="members")
        _ask(f"Delete team {name}?", is_sure)
        client.admin.delete_team(name)
    out.print(f"Team {escape(name)} is deleted; `xsam team enable {escape(name)}` brings it back.")


@users.command("list")
def list_users(output: OutputOption = Output.TABLE, url: UrlOption = DEFAULT_URL) -> None:
    """List the users of the service."""
    with connected(url) as client:
        found = list(client.admin.users())
    show(output, found, _user_table)


@users.command("service")
def put_service_account(
    name: UserArgument,
    team: Annotated[str, typer.Option(help="The one team that it has.")],
    role: Annotated[Role, typer.Option(help="What it may do there.")] = Role.MEMBER,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Create a service account, a program's user in a team, or change its role there; for the team's admins, too."""
    with connected(url) as client:
        client.admin.put_service_account(name, team, role)
    out.print(f"{escape(name)} is a service account, {role} of team {escape(team)}.")
    err.print(f"A token for it: xsam token create --user {escape(name)} --team {escape(team)} --days 90")


@users.command("disable")
def disable_user(
    name: UserArgument, cancel_jobs: CancelOption = False, is_sure: YesOption = False, url: UrlOption = DEFAULT_URL
) -> None:
    """End a user's tokens and sessions in all teams; says before what the user has."""
    with connected(url) as client:
        _say(f"User {name}", client.admin.user_leftovers(name), members="teams")
        _ask(f"Disable user {name}?", is_sure)
        _disable(lambda: client.admin.disable_user(name, cancel_jobs=cancel_jobs))
    out.print(f"User {escape(name)} is disabled.")


@users.command("enable")
def enable_user(name: UserArgument, url: UrlOption = DEFAULT_URL) -> None:
    """Let a disabled user have tokens again, or bring a deleted one back."""
    with connected(url) as client:
        client.admin.enable_user(name)
    out.print(f"User {escape(name)} may have tokens again: xsam token create --user {escape(name)} --team TEAM")


@users.command("delete")
def delete_user(name: UserArgument, is_sure: YesOption = False, url: UrlOption = DEFAULT_URL) -> None:
    """Disable a user for good: in no team and no list; what they did stays. Refused while they have jobs to come."""
    with connected(url) as client:
        _say(f"User {name}", client.admin.user_leftovers(name), members="teams")
        _ask(f"Delete user {name}?", is_sure)
        client.admin.delete_user(name)
    out.print(f"User {escape(name)} is deleted; `xsam user enable {escape(name)}` brings them back.")


def _say(who: str, has: LeftoversRead, *, members: str) -> None:
    mib = has.bundle_bytes / 2**20
    err.print(
        f"{escape(who)} has {has.num_memberships} {members}.\n"
        f"Ends now, for good: {has.num_tokens} tokens, {has.num_sessions} sessions of browsers.\n"
        f"Has not ended: {has.num_running_jobs} running, {has.num_queued_jobs} queued and {has.num_paused_jobs} paused "
        f"jobs, {has.num_live_studies} studies.\n"
        f"Stays, for admins of the service: {has.num_ended_jobs} ended jobs, {has.num_ended_studies} ended studies, "
        f"{has.num_bundles} bundles ({mib:.1f} MiB)."
    )
    if has.num_secrets:
        what = (
            "set last; set them anew where they know the values" if members == "teams" else "which go if it is deleted"
        )
        err.print(f"Secrets: {has.num_secrets}, {what}.")


def _ask(question: str, is_sure: bool) -> None:
    if not is_sure:
        typer.confirm(question, abort=True, err=True)


def _disable(call: Callable[[], DisabledRead]) -> None:
    """Repeat the call until nothing is left to cancel, and say what has ended."""
    done = call()
    num_cancelled = done.num_cancelled
    num_tokens, num_sessions = done.num_tokens, done.num_sessions
    while done.has_more:
        done = call()
        num_cancelled += done.num_cancelled
    out.print(f"Ended: {num_tokens} tokens, {num_sessions} sessions; cancelled: {num_cancelled} jobs and studies.")


def _user_table(found: Sequence[UserRead]) -> Table:
    rows = (
        (
            escape(user.name),
            "admin" if user.is_admin else "service account" if user.is_service else "",
            f"{user.created_at:%Y-%m-%d}",
            formats.NOTHING if user.disabled_at is None else f"{user.disabled_at:%Y-%m-%d}",
        )
        for user in found
    )
    return table(("user", "role", "since", "disabled"), rows)
