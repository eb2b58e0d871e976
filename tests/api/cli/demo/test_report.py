from pathlib import Path

from rich.console import Console

from tests.support.row_runner import RowRunner
from xsam.api.cli.demo.report import draw, result_table
from xsam.api.cli.demo.specs import demo_specs
from xsam.api.cli.watching import Watched
from xsam.api.client import Client
from xsam.services.specs.job import JobSpec

_PNG = b"\x89PNG\r\n\x1a\n"


def test_specs__differ_only_in_the_method_and_its_ranks() -> None:
    specs = [JobSpec.model_validate(spec) for spec in demo_specs()]
    assert [spec.optimizer.variant for spec in specs] == ["sgd", "sam", "xsam"]
    assert [spec.resources.num_workers for spec in specs] == [1, 1, 2]
    same = [
        spec.model_dump(exclude={"name", "optimizer", "resources"})
        | {"base": spec.optimizer.base, "label_noise": spec.dataset.label_noise}
        for spec in specs
    ]
    assert same[0] == same[1] == same[2]
    assert same[0]["label_noise"] == 0.4


def test_report__has_a_row_per_job_and_a_picture(client: Client, runner: RowRunner, tmp_path: Path) -> None:
    jobs = [Watched(client.submit({**spec, "epochs": 2})) for spec in demo_specs()]
    for watched in jobs:
        runner.run(watched.job.id)
        watched.update(client)
    console = Console(width=80, record=True)
    console.print(result_table(jobs))
    rows = [line for line in console.export_text().splitlines() if "SAM" in line or "SGD" in line]
    assert [row.split()[1] for row in rows] == ["SGD", "SAM", "XSAM"]
    assert max(map(len, rows)) <= 80
    assert all("90.0 %" in row and "3.5" in row and "1.20" in row for row in rows)

    draw(jobs, tmp_path / "demo.png")
    assert (tmp_path / "demo.png").read_bytes().startswith(_PNG)


def test_report__leaves_out_a_job_without_a_result(client: Client) -> None:
    assert result_table([Watched(client.submit({}))]).row_count == 0
