"""What the demo does with results that are not all good; the whole of it is run by `make demo`."""

from pathlib import Path

import pytest

from tests.support.row_runner import RowRunner
from xsam.api.cli.demo import demo
from xsam.api.cli.options import CommandError
from xsam.api.cli.watching import Watched
from xsam.api.client import Client


def test_report__a_failed_job_is_an_error_with_its_reason(client: Client, runner: RowRunner, tmp_path: Path) -> None:
    good, bad = Watched(client.submit({"name": "SAM"})), Watched(client.submit({"name": "XSAM"}))
    runner.run(good.job.id)
    runner.fail(runner.claim(bad.job.id), "the loss is not finite")
    for watched in (good, bad):
        watched.update(client)
    with pytest.raises(CommandError, match=r"^XSAM failed: the loss is not finite$"):
        demo.report([good, bad], tmp_path / "demo.png")
    assert not (tmp_path / "demo.png").exists()


def test_service__with_a_wrong_setting_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XSAM_DISPATCHER__POLL_S", "-1")
    with (
        pytest.raises(CommandError, match=r"settings are not valid: dispatcher\.poll_s: .*greater than 0"),
        demo.running_service(tmp_path),
    ):
        pytest.fail("it can't be ready")
