import os

import pytest

from xsam.workers.rank.secrets import in_environment


def test_environment__has_the_values_in_the_block_and_is_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "of-the-node")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    before = dict(os.environ)
    with in_environment({"HF_TOKEN": "of-the-team", "WANDB_API_KEY": "wandb-0123456789"}):
        assert (os.environ["HF_TOKEN"], os.environ["WANDB_API_KEY"]) == ("of-the-team", "wandb-0123456789")
    assert dict(os.environ) == before


def test_environment__is_as_before_also_after_a_failure_and_what_the_job_did_itself() -> None:
    before = dict(os.environ)
    with pytest.raises(RuntimeError):
        _spoil({"WANDB_API_KEY": "wandb-0123456789", "HF_TOKEN": "hf_0123456789"})
    assert dict(os.environ) == before


def _spoil(values: dict[str, str]) -> None:
    with in_environment(values):
        del os.environ["WANDB_API_KEY"]
        os.environ["HF_TOKEN"] = "another"
        raise RuntimeError
