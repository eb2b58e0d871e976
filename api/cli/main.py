"""The `xsam` command: which commands there are; what each does stands in `xsam.api.cli`.

A command's module is imported when the command runs, so that `xsam list` need not load a web server and a plotting
library: it starts in a third of the time.
"""

import importlib
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from xsam.api.cli.options import use_token
from xsam.api.cli.show import out
from xsam.api.http.health import VERSION

_COMMANDS = {
    "serve": "xsam.api.cli.serve:serve",
    "migrate": "xsam.api.cli.migrate:migrate",
    "backup": "xsam.api.cli.backup:backup",
    "restore": "xsam.api.cli.backup:restore",
    "doctor": "xsam.api.cli.doctor:doctor",
    "submit": "xsam.api.cli.jobs:submit",
    "check": "xsam.api.cli.check:check",
    "run": "xsam.api.cli.check:run",
    "list": "xsam.api.cli.jobs:list_jobs",
    "show": "xsam.api.cli.jobs:show_job",
    "logs": "xsam.api.cli.jobs:logs",
    "why": "xsam.api.cli.scheduling:why",
    "cancel": "xsam.api.cli.job_verbs:cancel",
    "pause": "xsam.api.cli.job_verbs:pause",
    "resume": "xsam.api.cli.job_verbs:resume",
    "retry": "xsam.api.cli.job_verbs:retry",
    "clone": "xsam.api.cli.job_verbs:clone",
    "set": "xsam.api.cli.job_verbs:change",
    "queue": "xsam.api.cli.scheduling:queue",
    "cluster": "xsam.api.cli.scheduling:cluster",
    "node": "xsam.api.cli.nodes:app",
    "maintenance": "xsam.api.cli.nodes:maintenance",
    "gc": "xsam.api.cli.gc:gc",
    "attention": "xsam.api.cli.scheduling:attention",
    "status": "xsam.api.cli.scheduling:status",
    "usage": "xsam.api.cli.scheduling:usage",
    "study": "xsam.api.cli.studies:app",
    "lab": "xsam.api.cli.lab:app",
    "pull": "xsam.api.cli.pull:pull",
    "login": "xsam.api.cli.login:login",
    "logout": "xsam.api.cli.login:logout",
    "whoami": "xsam.api.cli.login:whoami",
    "token": "xsam.api.cli.tokens:app",
    "team": "xsam.api.cli.teams:app",
    "webhook": "xsam.api.cli.webhooks:app",
    "secret": "xsam.api.cli.secrets:app",
    "user": "xsam.api.cli.leaving:users",
    "audit": "xsam.api.cli.teams:audit",
    "demo": "xsam.api.cli.demo.demo:demo",
}
"""Name: module and function (or group of commands), in the order of the help."""


class _LazyGroup(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        target = _COMMANDS.get(cmd_name)
        if target is None:
            return None
        if cmd_name not in self.commands:
            module, _, name = target.partition(":")
            found = getattr(importlib.import_module(module), name)
            command = get_command(found if isinstance(found, typer.Typer) else _alone(cmd_name, found))
            command.name = cmd_name  # a group has none of its own, and the help would show an empty one
            self.commands[cmd_name] = command
        return self.commands[cmd_name]


def _alone(name: str, function: Callable[..., Any]) -> typer.Typer:
    one = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    one.command(name)(function)
    return one


app = typer.Typer(
    name="xsam",
    cls=_LazyGroup,
    help="Training jobs with sharpness-aware optimizers: run the service, submit jobs, follow them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def main() -> None:
    """Run the command line."""
    app(prog_name="xsam")


def _print_version(is_asked: bool) -> None:
    if is_asked:
        out.print(f"xsam {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the release and end.")
    ] = False,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="XSAM_TOKEN",
            help="Who you are, instead of what `xsam login` remembered. Prefer XSAM_TOKEN: "
            "others on this machine can see the words of a command.",
        ),
    ] = None,
) -> None:
    use_token(token)
