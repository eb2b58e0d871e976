"""`xsam pull`: a job's weights, model card and logs, on this machine."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from xsam.api.cli.options import DEFAULT_URL, CommandError, JobIdArgument, UrlOption, connected
from xsam.api.cli.show import err, out
from xsam.services.artifacts.store import ArtifactKind

MODEL_CARD = "model-card.json"


def pull(
    job_id: JobIdArgument,
    folder: Annotated[Path | None, typer.Option(help="Where to put it.", show_default="./ID")] = None,
    checkpoints: Annotated[bool, typer.Option("--checkpoints", help="Also the checkpoints.")] = False,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Download a job's weights (safetensors), model card and logs."""
    target = folder or Path(job_id)
    with connected(url) as client:
        card = client.model_card(job_id)
        found = client.artifacts_and_gone(job_id)
        wanted = [file for file in found.items if checkpoints or file.kind is not ArtifactKind.CHECKPOINT]
        target.mkdir(parents=True, exist_ok=True)
        (target / MODEL_CARD).write_text(card.model_dump_json(indent=2) + "\n")
        for file in wanted:
            path = _inside(target, file.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download(job_id, file.name, path)
            out.print(f"{escape(str(path))}  {file.size_bytes:,} bytes")
    for what, at in (("weights", found.gone.weights_at), ("logs", found.gone.logs_at)):
        if at is not None:
            err.print(f"Its {what} were kept long enough and are gone since {at:%Y-%m-%d}.")
    out.print(f"{escape(str(target / MODEL_CARD))}  says where they come from")


def _inside(folder: Path, name: str) -> Path:
    """Return the path of a server's file name, unless it leads out of the folder.

    Raises:
        CommandError: it does; no server of ours sends such a name.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise CommandError(f"the server names a file {name!r}, which would be written outside of {folder}")
    return path
