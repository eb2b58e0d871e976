"""The `xsam` command: which commands there are; what each does stands in `api.commands`.

A command's module is imported when the command runs, so that `xsam list` need not load a web server and a plotting
library: it starts in a third of the time.
"""

import importlib
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from api.commands.options import out, use_token
from api.version import VERSION

_COMMANDS = {
    "serve": "api.commands.serve:serve",
    "migrate": "api.commands.migrate:migrate",
    "submit": "api.commands.jobs:submit",
    "list": "api.commands.jobs:list_jobs",
    "show": "api.commands.jobs:show",
    "logs": "api.commands.jobs:logs",
    "why": "api.commands.scheduling:why",
    "cancel": "api.commands.job_verbs:cancel",
    "pause": "api.commands.job_verbs:pause",
    "resume": "api.commands.job_verbs:resume",
    "retry": "api.commands.job_verbs:retry",
    "clone": "api.commands.job_verbs:clone",
    "set": "api.commands.job_verbs:change",
    "queue": "api.commands.scheduling:queue",
    "cluster": "api.commands.scheduling:cluster",
    "usage": "api.commands.scheduling:usage",
    "study": "api.commands.studies:app",
    "pull": "api.commands.pull:pull",
    "login": "api.commands.login:login",
    "logout": "api.commands.login:logout",
    "whoami": "api.commands.login:whoami",
    "token": "api.commands.tokens:app",
    "team": "api.commands.teams:app",
    "audit": "api.commands.teams:audit",
    "demo": "api.commands.demo:demo",
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
