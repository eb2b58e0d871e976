"""The `xsam` command: which commands there are; what each does stands in `api.commands`.

A command's module is imported when the command runs, so that `xsam list` need not load a web server and a plotting
library: it starts in a third of the time.
"""

import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from api.commands.options import out
from api.version import VERSION

_COMMANDS = {
    "serve": "api.commands.serve:serve",
    "submit": "api.commands.jobs:submit",
    "list": "api.commands.jobs:list_jobs",
    "show": "api.commands.jobs:show",
    "logs": "api.commands.jobs:logs",
    "cancel": "api.commands.jobs:cancel",
    "pull": "api.commands.pull:pull",
    "demo": "api.commands.demo:demo",
}
"""Name: module and function, in the order of the help."""


class _LazyGroup(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        target = _COMMANDS.get(cmd_name)
        if target is None:
            return None
        if cmd_name not in self.commands:
            module, _, function = target.partition(":")
            one = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            one.command(cmd_name)(getattr(importlib.import_module(module), function))
            self.commands[cmd_name] = get_command(one)
        return self.commands[cmd_name]


app = typer.Typer(
    name="xsam",
    cls=_LazyGroup,
    help="Training jobs with sharpness-aware optimizers: run the service, submit jobs, follow them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
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
) -> None:
    pass
