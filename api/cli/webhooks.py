"""`xsam webhook`: addresses that are told when a team's jobs and studies end."""

from typing import Annotated

import typer
from rich.markup import escape

from xsam.api import formats
from xsam.api.cli.options import DEFAULT_URL, UrlOption, connected
from xsam.api.cli.show import Output, OutputOption, err, out, show, table
from xsam.services.notifications.schemas import DeliveryRead, WebhookKind

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="As `xsam webhook list` shows it.")]
TeamOption = Annotated[str | None, typer.Option(help="Of this team.", show_default="yours")]

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Tell other systems when jobs and studies end (team's admins).",
)


@app.command()
def add(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="https://...; the operator says which hosts.")],
    on: Annotated[list[WebhookKind] | None, typer.Option(help="Whose ends; may be repeated.")] = None,
    team: TeamOption = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Add an address and print the secret that signs what is sent there, this once."""
    with connected(url) as client:
        made = client.admin.add_webhook(team or client.whoami().team, address, kinds=on or list(WebhookKind))
    remark = f"Webhook {made.id} is told of the ends of {' and '.join(made.kinds)}s. The secret is not shown again."
    show(output, made, lambda made: escape(made.secret), remark=remark)


@app.command("list")
def list_webhooks(team: TeamOption = None, output: OutputOption = Output.TABLE, url: UrlOption = DEFAULT_URL) -> None:
    """List a team's webhooks."""
    with connected(url) as client:
        found = client.admin.webhooks(team or client.whoami().team)
    rows = ((one.id, escape(one.url), ", ".join(one.kinds), escape(one.made_by)) for one in found)
    show(output, found, lambda found: table(("id", "address", "told of", "made by"), rows))


@app.command()
def remove(webhook_id: IdArgument, team: TeamOption = None, url: UrlOption = DEFAULT_URL) -> None:
    """Send nothing more there."""
    with connected(url) as client:
        client.admin.remove_webhook(team or client.whoami().team, webhook_id)
    out.print(f"Nothing more is sent to webhook {escape(webhook_id)}.")


@app.command("test")
def send_test(webhook_id: IdArgument, team: TeamOption = None, url: UrlOption = DEFAULT_URL) -> None:
    """Have a message sent that tells of nothing."""
    with connected(url) as client:
        made = client.admin.test_webhook(team or client.whoami().team, webhook_id)
    out.print(f"Message {made.id} is sent within a second or two.")
    err.print(f"Whether it has arrived: xsam webhook deliveries {escape(webhook_id)}")


@app.command()
def deliveries(
    webhook_id: IdArgument, team: TeamOption = None, output: OutputOption = Output.TABLE, url: UrlOption = DEFAULT_URL
) -> None:
    """Show the latest messages to a webhook and whether they have arrived."""
    with connected(url) as client:
        found = client.admin.deliveries(team or client.whoami().team, webhook_id)
    rows = (
        (one.id, one.type, one.about or formats.NOTHING, formats.age(one.created_at), str(one.num_tries), _state(one))
        for one in found
    )
    columns = ("message", "type", "about", "age", "tries", "state")
    show(output, found, lambda found: table(columns, rows, right=("age", "tries"), wrapped=("state",)))


def _state(one: DeliveryRead) -> str:
    if one.delivered_at is not None:
        return "arrived"
    error = f": {escape(one.error)}" if one.error else ""
    if one.next_at is None:
        return f"[red]given up[/]{error}"
    return f"waits{error}" if one.num_tries == 0 else f"[yellow]tried again at {one.next_at:%H:%M:%S} UTC[/]{error}"
