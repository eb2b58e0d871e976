"""`xsam team`: teams, their weight and quota, their members; `xsam audit`: who changed what."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from xsam.api import formats
from xsam.api.cli import leaving
from xsam.api.cli.leaving import TeamArgument, UserArgument
from xsam.api.cli.options import DEFAULT_URL, CommandError, UrlOption, connected
from xsam.api.cli.show import Output, OutputOption, err, out, show, table
from xsam.services.teams.roles import Role
from xsam.services.teams.schemas import AuditEventRead, TeamRead

_UNLIMITED = "none"
_AS_SERVICE = "default"
_LIMITS = ("gpus", "cpus", "running_jobs")
_KEPT = {
    "checkpoints": "checkpoint_days",
    "weights": "weights_days",
    "logs": "log_days",
    "metrics": "metrics_days",
    "rows": "row_days",
    "bundles": "bundle_days",
    "environments": "environment_days",
}
_FIELDS = {**_KEPT, "bytes": "max_bytes"}
_IDLE = {"then": "then", "after": "after_s", "grace": "grace_s", "requeues": "max_requeues"}

WeightOption = Annotated[float | None, typer.Option(help="Share of a busy cluster, relative to other teams' weights.")]
GpusOption = Annotated[str | None, typer.Option(metavar="N|none", help="GPUs that the team may hold at once.")]
CpusOption = Annotated[str | None, typer.Option(metavar="N|none", help="CPUs that the team may hold at once.")]
KeepOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WHAT=DAYS|default",
        help=f"How many days ended jobs keep {', '.join(_KEPT)}; bytes=N bounds their files. May be repeated.",
    ),
]
KindOption = Annotated[
    list[str] | None,
    typer.Option(
        "--gpus-of",
        metavar="KIND=N|none",
        help="GPUs of one kind that it may hold at once; all such limits are replaced. May be repeated.",
    ),
]
IdleOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="then=WHAT|after=MIN|grace=MIN|requeues=N",
        help="Jobs whose GPUs do nothing for `after`: nothing, warn, or, `grace` later, requeue or end; after N "
        "`requeues` in a row they are paused. `default` is as everywhere. May be repeated.",
    ),
]
JobsOption = Annotated[str | None, typer.Option(metavar="N|none", help="Jobs that the team may run at once.")]

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help="Teams: weight, quota, members."
)


@app.command()
def create(  # noqa: PLR0913, PLR0917 - the options of a command
    name: TeamArgument,
    weight: WeightOption = None,
    gpus: GpusOption = None,
    cpus: CpusOption = None,
    running_jobs: JobsOption = None,
    gpus_of: KindOption = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Create a team; without limits, unless some are given."""
    with connected(url) as client:
        quota = _quota(gpus, cpus, running_jobs, gpus_of or ())
        if any(team.name == name for team in client.admin.teams()):
            raise CommandError(f"team {name} exists already; change it with `xsam team set`")
        team = client.admin.create_team(name, weight=1.0 if weight is None else weight, quota=quota)
    out.print(_sentence(team))


@app.command("set")
def set_limits(  # noqa: PLR0913, PLR0917 - the options of a command
    name: TeamArgument,
    weight: WeightOption = None,
    gpus: GpusOption = None,
    cpus: CpusOption = None,
    running_jobs: JobsOption = None,
    gpus_of: KindOption = None,
    keep: KeepOption = None,
    idle: IdleOption = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Change a team's weight, limits, how long its jobs are kept, what idle GPUs lead to; what is not named stays."""
    with connected(url) as client:
        quota = _quota(gpus, cpus, running_jobs, gpus_of or ())
        kept = _retention(keep or ())
        team = client.admin.change_team(
            name, weight=weight, quota=quota or None, retention=kept, idle=_idle(idle or ())
        )
    out.print(_sentence(team))


@app.command("list")
def list_teams(output: OutputOption = Output.TABLE, url: UrlOption = DEFAULT_URL) -> None:
    """List the teams you may see, with weight and quota."""
    with connected(url) as client:
        teams = list(client.admin.teams())
    show(output, teams, _team_table)


@app.command()
def members(name: TeamArgument, output: OutputOption = Output.TABLE, url: UrlOption = DEFAULT_URL) -> None:
    """List a team's members and their roles."""
    with connected(url) as client:
        found = list(client.admin.members(name))
    rows = ((escape(one.user), str(one.role), f"{one.created_at:%Y-%m-%d}") for one in found)
    show(output, found, lambda found: table(("user", "role", "since"), rows))


@app.command()
def add(
    name: TeamArgument,
    user: UserArgument,
    role: Annotated[Role, typer.Option(help="What they may do.")] = Role.MEMBER,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Take a user into a team, or change their role."""
    with connected(url) as client:
        member = client.admin.put_member(name, user, role)
    out.print(f"{escape(member.user)} is {member.role} of team {escape(member.team)}.")
    err.print(f"A token for them: xsam token create --user {escape(user)} --team {escape(name)}")


@app.command()
def remove(name: TeamArgument, user: UserArgument, url: UrlOption = DEFAULT_URL) -> None:
    """Take a user out of a team; their tokens in it end."""
    with connected(url) as client:
        client.admin.remove_member(name, user)
    out.print(f"{escape(user)} is no longer in team {escape(name)}, and their tokens in it are revoked.")


app.command("disable")(leaving.disable_team)
app.command("enable")(leaving.enable_team)
app.command("delete")(leaving.delete_team)


def audit(
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many, newest first.")] = 50,
    output: OutputOption = Output.TABLE,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Show who changed teams, users and tokens (for admins)."""
    with connected(url) as client:
        events = client.admin.audit(limit=limit)
    show(output, events, lambda events: Group(*map(_change, events)))


def _team_table(teams: Sequence[TeamRead]) -> Table:
    limits = ("weight", "GPUs", "CPUs", "running jobs")
    rows = (
        (_name(team), f"{team.weight:g}", *(_limit(getattr(team.quota, name)) for name in _LIMITS)) for team in teams
    )
    return table(("team", *limits), rows, right=limits)


def _name(team: TeamRead) -> str:
    return escape(team.name) + (" (disabled)" if team.disabled_at is not None else "")


def _change(event: AuditEventRead) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in event.data.items() if value not in (None, []))
    where = f" in {event.team}" if event.team not in (None, event.subject) else ""
    line = f"{event.actor}: {event.action} {event.subject}{where}{f' ({facts})' if facts else ''}"
    return f"[dim]{event.at:%Y-%m-%d %H:%M:%S}[/]  {escape(line)}"


def _quota(gpus: str | None, cpus: str | None, running_jobs: str | None, gpus_of: Sequence[str]) -> dict[str, Any]:
    given = dict(zip(_LIMITS, (gpus, cpus, running_jobs), strict=True))
    quota: dict[str, Any] = {name: _parsed(name, text) for name, text in given.items() if text is not None}
    if gpus_of:
        pairs = [text.partition("=") for text in gpus_of if text != _UNLIMITED]
        quota["gpus_by_kind"] = {kind: _parsed("gpus-of", value) for kind, _, value in pairs} or None
    return quota


def _parsed(name: str, text: str) -> float | None:
    if text == _UNLIMITED:
        return None
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError as e:
        option = name.replace("_", "-")
        raise CommandError(f"--{option} is {text!r}; allowed are numbers from 0, and `{_UNLIMITED}`") from e


def _retention(given: Sequence[str]) -> dict[str, float | None] | None:
    found: dict[str, float | None] = {}
    for text in given:
        what, _, value = text.partition("=")
        if what not in _FIELDS:
            raise CommandError(f"--keep is {text!r}; allowed are WHAT=DAYS with WHAT one of {', '.join(_FIELDS)}")
        try:
            number = None if value == _AS_SERVICE else float(value)
        except ValueError as e:
            raise CommandError(f"--keep is {text!r}; allowed are numbers, and `{_AS_SERVICE}`") from e
        found[_FIELDS[what]] = int(number) if number is not None and what == "bytes" else number
    return found or None


def _idle(given: Sequence[str]) -> dict[str, str | float | None] | None:
    found: dict[str, str | float | None] = {}
    for text in given:
        what, _, value = text.partition("=")
        if what not in _IDLE:
            allowed = "then=WHAT, after=MINUTES, grace=MINUTES and requeues=N"
            raise CommandError(f"--idle is {text!r}; allowed are {allowed}")
        try:
            found[_IDLE[what]] = None if value == _AS_SERVICE else _idle_value(what, value)
        except ValueError as e:
            unit = "whole numbers" if what == "requeues" else "minutes"
            raise CommandError(f"--idle is {text!r}; allowed are {unit}, and `{_AS_SERVICE}`") from e
    return found or None


def _idle_value(what: str, value: str) -> str | float:
    if what == "then":
        return value
    return int(value) if what == "requeues" else 60 * float(value)


def _limit(value: float | None) -> str:
    return formats.NOTHING if value is None else f"{value:g}"


def _sentence(team: TeamRead) -> str:
    names = {"gpus": "GPUs", "cpus": "CPUs", "running_jobs": "running jobs"}
    limits = [
        f"{getattr(team.quota, name):g} {noun}" for name, noun in names.items() if getattr(team.quota, name) is not None
    ]
    limits += [f"{gpus:g} GPUs of kind {kind}" for kind, gpus in (team.quota.gpus_by_kind or {}).items()]
    kept = [
        f"{what} {getattr(team.retention, field):g}" + (" days" if what != "bytes" else "")
        for what, field in _FIELDS.items()
        if getattr(team.retention, field) is not None
    ]
    keeps = f"; keeps {', '.join(kept)}" if kept else ""
    minutes = {"after": team.idle.after_s, "grace": team.idle.grace_s}
    idle = [
        team.idle.then or "",
        *(f"{what} {value / 60:g} min" for what, value in minutes.items() if value is not None),
        f"paused after {team.idle.max_requeues} requeues" if team.idle.max_requeues is not None else "",
    ]
    said = ", ".join(word for word in idle if word)
    keeps += f"; idle GPUs: {said}" if said else ""
    return f"Team [bold]{escape(team.name)}[/]: weight {team.weight:g}, {', '.join(limits) or 'no limits'}{keeps}."
