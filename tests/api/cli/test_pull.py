"""`xsam pull` against a real server."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from xsam.api.cli.main import app
from xsam.api.cli.options import CommandError
from xsam.api.cli.pull import _inside
from xsam.api.client import Client
from xsam.services.artifacts.schemas import ModelCard
from xsam.services.artifacts.store import JobFolder
from xsam.services.settings import Settings


def test_pull__writes_weights_logs_and_the_card(client: Client, url: str, settings: Settings, tmp_path: Path) -> None:
    job_id = client.submit({"epochs": 3}).id
    root = JobFolder(settings.artifact_root, job_id).path
    for name in ("weights/best.safetensors", "checkpoints/step-000000003/manifest.json", "attempts/1/logs/rank-0.log"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(name.encode())
    result = CliRunner().invoke(app, ["pull", job_id, "--folder", str(tmp_path / "got"), "--url", url])
    assert result.exit_code == 0, result.output
    got = {path.relative_to(tmp_path / "got").as_posix() for path in (tmp_path / "got").rglob("*") if path.is_file()}
    assert got == {"weights/best.safetensors", "attempts/1/logs/rank-0.log", "model-card.json"}
    assert (tmp_path / "got" / "weights/best.safetensors").read_bytes() == b"weights/best.safetensors"
    card = ModelCard.model_validate_json((tmp_path / "got" / "model-card.json").read_text())
    assert card.spec == client.get(job_id).spec


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "weights/../../evil"])
def test_file_name_that_leads_out_of_the_folder__is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="outside"):
        _inside(tmp_path / "got", name)
