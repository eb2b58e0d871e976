import io
from collections.abc import Sequence

import pytest
from rich.console import Console

from tests.support.row_runner import RowRunner
from xsam.api.cli import watching
from xsam.api.cli.watching import Watched, render, watch
from xsam.api.client import Client
from xsam.api.client.errors import ApiError, UnreachableError
from xsam.api.http.problems import Problem
from xsam.services.jobs.schemas import JobRead
from xsam.services.metrics.records import AlphaRecord
from xsam.services.metrics.schemas import EpochRead


def _text(watched: Watched, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(render([watched]))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_render__waiting_running_and_done(client: Client, runner: RowRunner) -> None:
    watched = Watched(client.submit({"name": "noisy", "epochs": 4}))
    assert "waiting for its turn" in _text(watched)

    lease = runner.claim(watched.job.id)
    runner.report(lease, 1, 2)
    watched.update(client)
    shown = _text(watched)
    for part in (
        "noisy running",
        "epoch 2/4",
        "ETA 4.0 s",
        "eval 0.750",
        "accuracy 75.0 %",
        "alpha* 1.20",
        "1,234 samp",
    ):
        assert part in shown

    runner.report(lease, 3, 4)
    runner.complete(lease)
    watched.update(client)
    assert "ETA" not in _text(watched)
    assert "succeeded" in _text(watched)


def test_update__reads_only_what_is_new(client: Client, runner: RowRunner) -> None:
    watched = Watched(client.submit({"epochs": 3}))
    lease = runner.claim(watched.job.id)
    runner.report(lease, 1)
    assert [epoch.epoch for epoch in watched.update(client)] == [1]
    assert watched.update(client) == []
    runner.report(lease, 2, 3)
    assert [epoch.epoch for epoch in watched.update(client)] == [2, 3]
    assert [epoch.epoch for epoch in watched.epochs] == [1, 2, 3]
    assert len(watched.alphas) == 3


def test_update__starts_over_with_a_new_attempt(client: Client, runner: RowRunner) -> None:
    watched = Watched(client.submit({"epochs": 3, "retry": {"user": 1}}))
    lease = runner.claim(watched.job.id)
    runner.report(lease, 1, 2)
    watched.update(client)
    runner.fail(lease, is_retry=True)
    runner.report(runner.claim(watched.job.id), 2)
    watched.update(client)
    assert [epoch.epoch for epoch in watched.epochs] == [1, 2]
    assert [epoch.attempt for epoch in watched.epochs] == [1, 2]


def test_epochs_done__counts_the_part_of_the_present_epoch(client: Client) -> None:
    job = client.submit({"epochs": 4})
    inside = job.progress.model_copy(update={"epochs_done": 1, "step": 15, "steps_per_epoch": 10})
    assert Watched(job.model_copy(update={"progress": inside})).epochs_done == 1.5


def test_fixed_alpha__is_shown_though_none_is_searched(client: Client) -> None:
    assert Watched(client.submit({"optimizer": {"variant": "xsam", "alpha": 0.5}})).alpha == 0.5


def test_watch__on_a_terminal_draws_in_place(client: Client, runner: RowRunner) -> None:
    watched = Watched(client.submit({"name": "noisy", "epochs": 2}))
    runner.run(watched.job.id)
    console = Console(file=io.StringIO(), width=100, force_terminal=True, force_interactive=True)
    watch(client, [watched], console)
    drawn = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[" in drawn
    assert "epoch 2/2" in drawn


def test_watch__goes_on_when_the_service_was_away_for_a_while(client: Client, runner: RowRunner) -> None:
    watched = Watched(client.submit({"name": "noisy", "epochs": 2}))
    runner.run(watched.job.id)
    flaky = _Flaky(client)
    console = Console(file=io.StringIO(), width=200)
    watch(flaky, [watched], console)  # type: ignore[arg-type]
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert flaky.failures == []
    assert [text.count(f"epoch {number}/2") for number in (1, 2)] == [1, 1]
    assert watched.is_over


def test_watch__gives_up_at_last_and_at_once_where_it_is_refused(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(client.submit({}))
    with pytest.raises(ApiError):
        watch(_Flaky(client, _refusal(404)), [watched], Console(file=io.StringIO()))  # type: ignore[arg-type]
    monkeypatch.setattr(watching, "PATIENCE_S", 0.0)
    with pytest.raises(UnreachableError):
        watch(_Flaky(client), [watched], Console(file=io.StringIO()))  # type: ignore[arg-type]


def _refusal(status: int) -> ApiError:
    return ApiError(Problem(type="", title="", status=status, detail="no", code="unknown"))


class _Flaky:
    """A client whose calls fail first: of each kind, and in the middle of an update."""

    def __init__(self, client: Client, *failures: Exception) -> None:
        self._client = client
        self.failures = list(failures) or [UnreachableError("refused"), _refusal(503), UnreachableError("refused")]

    def get(self, job_id: str) -> JobRead:
        if len(self.failures) > 1 or (self.failures and isinstance(self.failures[0], ApiError)):
            raise self.failures.pop(0)
        return self._client.get(job_id)

    def metrics(self, job_id: str, *, after: int) -> Sequence[EpochRead]:
        return self._client.metrics(job_id, after=after)

    def alphas(self, job_id: str, *, after_step: int) -> Sequence[AlphaRecord]:
        if self.failures:
            raise self.failures.pop(0)
        return self._client.alphas(job_id, after_step=after_step)
