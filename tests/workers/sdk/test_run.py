"""A script's run without the service: it prints, saves whole checkpoints, and goes on from the newest intact one."""

import json
from pathlib import Path

import pytest
import torch

from xsam.workers.sdk.run import MANIFEST, STATE, Run, Terminal, enter, start


def run_in(folder: Path, rank: int = 0) -> Run:
    return Run(Terminal(), config={}, rank=rank, world_size=1, device="cpu", data_root=folder, folder=folder / "run")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "run").iterdir())


def test_save__brings_model_optimizer_and_random_numbers_back(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(2)).sum().backward()
    optimizer.step()
    run_in(tmp_path).save(7, model=model, optimizer=optimizer)
    drawn = torch.rand(3)
    other = torch.nn.Linear(2, 2)
    again = torch.optim.SGD(other.parameters(), lr=0.5, momentum=0.9)
    assert run_in(tmp_path).restore(model=other, optimizer=again) == 7
    assert torch.equal(torch.rand(3), drawn)
    assert torch.equal(other.weight, model.weight)
    assert again.param_groups[0]["lr"] == 0.1
    assert len(again.state_dict()["state"]) == 2


def test_checkpoint__is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    with pytest.raises(FileNotFoundError), run.checkpoint(1) as folder:
        (folder / "half" / "written").write_text("x")
    assert names(tmp_path) == []
    assert run.latest_checkpoint() is None
    with run_in(tmp_path, rank=1).checkpoint(1) as folder:
        (folder / "other rank's").write_text("x")
    assert names(tmp_path) == []


def test_checkpoint__newest_two_are_kept_and_a_damaged_one_is_passed_over(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    for step in (1, 2, 2, 3):
        with run.checkpoint(step) as folder:
            (folder / STATE).write_text(f"state {step}")
    assert names(tmp_path) == ["step-000000002", "step-000000003"]
    newest = run.latest_checkpoint()
    assert newest is not None
    assert newest.name == "step-000000003"
    (newest / STATE).write_text("damaged")
    assert run.latest_checkpoint() == newest.with_name("step-000000002")


def test_report__prints_and_a_later_run_knows_the_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_in(tmp_path)
    run.report(step=1, loss=torch.tensor(0.5))
    run.report(step=2, epoch=1, loss=0.4, f1=0.9)
    with run.checkpoint(2):
        pass
    assert "step 1: loss 0.5000\nepoch 1, step 2: loss 0.4, f1 0.9\n" in capsys.readouterr().out
    assert json.loads(((tmp_path / "run" / "step-000000002") / MANIFEST).read_text())["state"]["epochs_done"] == 1
    run_in(tmp_path)
    assert "going on from step 2" in capsys.readouterr().out
    with pytest.raises(ValueError, match="needs loss"):
        run.report(step=3, epoch=2)


def test_start__gives_defaults_and_one_run_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    try:
        run = start(lr=0.1)
        assert (run.rank, run.world_size, run.config, run.is_first) == (1, 2, {"lr": 0.1}, False)
        assert start() is run
    finally:
        enter(None)


def test_data__lies_below_the_root(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert run_in(tmp_path).data("mine") == tmp_path / "mine"
    for name in ("gone", "../x"):
        with pytest.raises(FileNotFoundError):
            run_in(tmp_path).data(name)
