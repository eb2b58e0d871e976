"""`xsam node`: cordon, drain and uncordon a machine; `xsam maintenance`: let nothing new start anywhere."""

from typing import Annotated

import typer
from rich.markup import escape

from xsam.api.cli.options import DEFAULT_URL, UrlOption, connected
from xsam.api.cli.show import err, out
from xsam.services.cluster.schemas import CordonRead

NodeArgument = Annotated[str, typer.Argument(metavar="NODE", help="Host or Ray id, as `xsam cluster` shows it.")]
ReasonOption = Annotated[str | None, typer.Option(help="Why; people whose jobs wait are told.")]
WithinOption = Annotated[
    float, typer.Option("--within", min=0, metavar="SECONDS", help="Let jobs finish for so long before they move.")
]

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help="Set machines apart (admins)."
)
maintenance = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help="Let nothing new start (admins)."
)


@app.command()
def cordon(node: NodeArgument, reason: ReasonOption = None, url: UrlOption = DEFAULT_URL) -> None:
    """Let a machine take no new jobs; those that run there finish."""
    with connected(url) as client:
        client.admin.cordon(node, reason=reason)
    out.print(f"{escape(node)} takes no new jobs; those that run there finish.")


@app.command()
def drain(
    node: NodeArgument, within: WithinOption = 0.0, reason: ReasonOption = None, url: UrlOption = DEFAULT_URL
) -> None:
    """Empty a machine: jobs save their state and move, at once or after a while. Says how many still run there."""
    with connected(url) as client:
        made = client.admin.cordon(node, reason=reason, drain_within_s=within)
        cluster = client.cluster()
    num_jobs = sum(len(one.jobs) for one in cluster.nodes if node in (one.host, one.id))
    out.print(f"{escape(node)} takes no new jobs; {_leaving(made)}. {num_jobs} run there now.")
    err.print("`xsam cluster` shows when it is empty; `xsam node uncordon` lets it take jobs again.")


@app.command()
def uncordon(node: NodeArgument, url: UrlOption = DEFAULT_URL) -> None:
    """Let a machine take jobs again."""
    with connected(url) as client:
        client.admin.uncordon(node)
    out.print(f"{escape(node)} takes jobs again.")


@maintenance.command("on")
def begin(
    reason: ReasonOption = None,
    drain_within: Annotated[
        float | None,
        typer.Option("--drain", min=0, metavar="SECONDS", help="Have running jobs save their state after so long."),
    ] = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Let nothing new start; submitted jobs wait."""
    with connected(url) as client:
        made = client.admin.begin_maintenance(reason=reason, drain_within_s=drain_within)
    out.print(f"Nothing new starts until `xsam maintenance off`; {_leaving(made)}.")


@maintenance.command("off")
def end(url: UrlOption = DEFAULT_URL) -> None:
    """Let jobs start again."""
    with connected(url) as client:
        client.admin.end_maintenance()
    out.print("Jobs start again.")


def _leaving(made: CordonRead) -> str:
    if made.drain_at is None:
        return "running jobs finish"
    return f"jobs that still run at {made.drain_at:%H:%M:%S} UTC save their state and go back to the queue"
