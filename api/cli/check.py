"""`xsam check, run`: try a job's own code on the service or on this machine, before anything is queued."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from xsam.api.cli import spec_files
from xsam.api.cli.code import with_code
from xsam.api.cli.options import DEFAULT_URL, CommandError, UrlOption, connected, reported
from xsam.api.cli.show import Output, OutputOption, err, fact_table, show
from xsam.api.client import Client
from xsam.api.client.bundles import folder_of
from xsam.api.client.requirements import text_of
from xsam.services.checks.schemas import CheckAnswer
from xsam.services.errors import InvalidRequestError
from xsam.services.settings import get_settings

PATIENCE_S = 120.0
"""A check has a minute, and may wait for others."""
_PROGRAM = "xsam.workers.local"

FileArgument = Annotated[str, typer.Argument(metavar="FILE", help="YAML or JSON; - reads standard input.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a field; may be repeated.")
]
LocalOption = Annotated[bool, typer.Option("--local", help="On this machine, without the service.")]


def check(
    source: FileArgument,
    overrides: SetOption = None,
    local: LocalOption = False,
    output: OutputOption = Output.TABLE,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Try a job's own code: imports, one batch forward and backward, one evaluated; nothing is queued."""
    with reported():
        spec = spec_files.load(source, overrides or ())
        if local:
            answer = CheckAnswer.model_validate_json(_locally("check", spec, source).stdout)
            tell(answer, output)
            return
    with connected(url) as client:
        tell(_asked(client, with_code(client, spec, source)), output)


def run(
    source: FileArgument,
    overrides: SetOption = None,
    local: LocalOption = False,
    folder: Annotated[Path, typer.Option("--out", help="For checkpoints and weights.")] = Path("xsam-run"),
) -> None:
    """Train a job in a process of this machine, without the service; started again, it goes on."""
    with reported():
        if not local:
            raise CommandError("xsam run trains on this machine: add --local; `xsam submit` queues a job")
        spec = spec_files.load(source, overrides or ())
        status = _locally("run", spec, source, "--out", str(folder)).returncode
    if status:
        raise typer.Exit(1)


def check_before_submit(client: Client, spec: Mapping[str, Any]) -> None:
    """Have the service try a job that brings code; says so where no dispatcher answers.

    Raises:
        typer.Exit: the job could not train; the reason has been printed.
    """
    answer = _asked(client, spec)
    if answer is not None and answer.error is not None:
        tell(answer, Output.TABLE)


def tell(answer: CheckAnswer | None, output: Output) -> None:
    """Print what a check found.

    Raises:
        typer.Exit: the job could not train.
    """
    if answer is None:
        raise typer.Exit(1)
    if answer.error is not None and output is Output.TABLE:
        if answer.traceback:
            err.print(answer.traceback.rstrip(), markup=False, highlight=False)
        err.print(f"Error: {answer.error}", markup=False, highlight=False)
    else:
        show(output, answer, lambda answer: fact_table(_facts(answer)))
    if answer.error is not None:
        raise typer.Exit(1)


def _asked(client: Client, spec: Mapping[str, Any]) -> CheckAnswer | None:
    found = client.check(spec, wait_s=PATIENCE_S)
    if found.answer is None:
        err.print(f"No dispatcher has answered within {PATIENCE_S:.0f} s; the code is not checked.", markup=False)
    return found.answer


def _facts(answer: CheckAnswer) -> list[tuple[str, str]]:
    numbers = [
        ("parameters", answer.num_parameters and f"{answer.num_parameters:,} ({answer.num_trainable:,} trained)"),
        ("steps", answer.steps_per_epoch and f"{answer.steps_per_epoch:,} an epoch"),
        ("batch", answer.batch),
        ("loss", None if answer.loss is None else f"{answer.loss:.4f} at the first batch"),
        ("metrics", ", ".join(answer.metrics)),
        ("best", answer.best),
        ("note", "; ".join(answer.notes)),
    ]
    return [("check", "[green]it can train[/]"), *((name, str(value)) for name, value in numbers if value)]


def _locally(what: str, spec: Mapping[str, Any], source: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the workers' local program on a job; the API's process knows no torch.

    Raises:
        CommandError: the packages that train are not installed, or the job is not valid.
    """
    beside = Path(source).parent if source != "-" else Path()
    try:
        code = folder_of(spec, beside)
        requirements = text_of(spec, beside)
    except (OSError, InvalidRequestError) as e:
        raise CommandError(str(e)) from e
    settings = get_settings()
    with tempfile.TemporaryDirectory(prefix="xsam-job-") as scratch:
        file = Path(scratch) / "job.json"
        file.write_text(json.dumps(spec), encoding="utf-8")
        command = [sys.executable, "-m", _PROGRAM, what, str(file), *arguments]
        if requirements is not None:
            listed = Path(scratch) / "requirements.txt"
            listed.write_text(requirements, encoding="utf-8")
            command += ["--requirements", str(listed)]
            command += [] if settings.code.index is None else ["--index", settings.code.index]
        command += ["--data-root", str(settings.dataset_root), "--model-root", str(settings.model_root)]
        if code is not None:
            command += ["--code", str(_root_of(spec, code))]
        for package in settings.training.allowed_packages:
            command += ["--allowed", package]
        stdout = subprocess.PIPE if what == "check" else None
        done = subprocess.run(command, stdout=stdout, text=True, check=False, env=dict(os.environ))  # noqa: S603 - our own words
    if what == "check" and not done.stdout:
        raise CommandError("the job could not be tried on this machine; see above (pip install 'xsam[service]' trains)")
    return done


def _root_of(spec: Mapping[str, Any], folder: Path) -> Path:
    code = spec.get("code")
    return folder / str(code.get("root", ".")) if isinstance(code, Mapping) else folder
