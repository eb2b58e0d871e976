"""What the documents tell people to type: each `xsam` line is a command with these options, each setting exists."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from typer.main import get_command

from xsam.api.cli.main import app
from xsam.services.settings import Settings

ROOT = Path(__file__).parents[3]
DOCUMENTS = ("README.md", "deploy/docs/install.md", "deploy/docs/operations.md")
OPERATIONS = (ROOT / "deploy" / "docs" / "operations.md").read_text()
_BLOCK = re.compile(r"^```(?:console|sh|bash)\n(.*?)^```", re.M | re.S)
_SETTING = re.compile(r"XSAM_([A-Z_]*?[A-Z])__([A-Z][A-Z_]*[A-Z])")


def _typed(text: str) -> Iterator[str]:
    """Yield each line that calls `xsam`, without what a shell does with its output."""
    for block in _BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            words = line.removeprefix("$ ")
            if words.startswith("xsam "):
                yield re.split(r" [>|&]+ ", words)[0]


LINES = sorted({line for name in DOCUMENTS for line in _typed((ROOT / name).read_text())})


@pytest.mark.parametrize("line", LINES)
def test_line__is_a_command_with_these_options(line: str) -> None:
    command: click.Command = get_command(app)
    words = shlex.split(line, comments=True)[1:]
    context = None
    while isinstance(command, click.Group):
        context = command.make_context("xsam", words, parent=context)
        _, found, words = command.resolve_command(context, [*context.protected_args, *context.args])
        assert found is not None, line
        command = found
    command.make_context("xsam", words, parent=context)


def test_lines__are_found_in_each_document() -> None:
    assert {name for name in DOCUMENTS if not list(_typed((ROOT / name).read_text()))} == set()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_settings__are_some_that_there_are(name: str) -> None:
    named = set(_SETTING.findall((ROOT / name).read_text()))
    groups = {group.upper(): field.annotation for group, field in Settings.model_fields.items()}
    unknown = {
        f"XSAM_{group}__{field}"
        for group, field in named
        if field.lower() not in getattr(groups.get(group), "model_fields", {})
    }
    assert unknown == set()


def test_metrics_and_alerts_of_the_operators_document__are_there() -> None:
    exposition = (ROOT / "api" / "http" / "exposition.py").read_text()
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "xsam.rules.yml").read_text())["groups"][0]["rules"]
    metrics = set(re.findall(r"`?(xsam_[a-z_]+)[`{]", OPERATIONS))
    alerts = set(re.findall(r"`(Xsam[A-Za-z]+)`", OPERATIONS))
    assert {name for name in metrics if f'"{name}"' not in exposition} == set()
    assert alerts
    assert alerts <= {rule["alert"] for rule in rules}
