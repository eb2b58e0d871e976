"""How an attempt's end is stored where the database refuses what there is to store."""

from pathlib import Path
from typing import Any, cast

import pytest

from tests.support import jobs
from tests.support.callers import ROOT, SECRET_KEY, make_secret, make_team
from xsam.services.db.session import Database
from xsam.services.jobs.models import KIND_TRAINING
from xsam.services.jobs.queue import ClaimedJob
from xsam.services.jobs.states import FailureKind, JobState
from xsam.services.metrics.records import EpochRecord
from xsam.services.secrets import verbs
from xsam.services.settings import LogSettings, SchedulingSettings, TrackerSettings
from xsam.services.specs.job import JobSpec
from xsam.services.stores.store import StorePlace
from xsam.workers.environments.store import EnvironmentStore
from xsam.workers.messages import RankResult, RunnerConfig, RunnerOutcome
from xsam.workers.runner.attempt import Attempt
from xsam.workers.runner.rank_group import GroupEnding

SUCCESS = GroupEnding(RankResult(0, summary={"final_eval_loss": 0.5}), is_clean=True)


def _attempt(database: Database, folder: Path, **fields: Any) -> Attempt:
    lease = jobs.submit_and_claim(database, **fields)
    config = RunnerConfig(
        database_url="",
        place=StorePlace(folder),
        dataset_root=folder,
        model_root=folder,
        code_root=folder,
        environments=EnvironmentStore(folder, None, 0),
        allow_download=False,
        allowed_packages=(),
        lease_s=30.0,
        is_cpu_only=True,
        scheduling=SchedulingSettings(),
        first_user_id=None,
        trackers=TrackerSettings(),
        logs=LogSettings(),
        secret_keys=(SECRET_KEY,),
    )
    assert SECRET_KEY not in repr(config)
    claimed = ClaimedJob(lease, KIND_TRAINING, JobSpec.model_validate(jobs.read(database, lease.job_id).spec))
    return Attempt(config, database, claimed, cast(Any, None))


def test_end__stores_a_success(database: Database, tmp_path: Path) -> None:
    attempt = _attempt(database, tmp_path)
    assert attempt.end(SUCCESS) is RunnerOutcome.RANKS_CLEAN
    assert jobs.read(database, attempt.job_id).state == JobState.SUCCEEDED


def test_attempt_whose_secret_is_gone__fails_before_a_rank_hears_of_it(database: Database, tmp_path: Path) -> None:
    make_team(database, "red")
    make_secret(database, "red")
    attempt = _attempt(database, tmp_path, secrets=["WANDB_API_KEY"])
    with database.unit_of_work() as session:
        verbs.remove(session, ROOT, "red", "WANDB_API_KEY")
    assert attempt.run_on([]) is RunnerOutcome.RANKS_CLEAN
    job = jobs.read(database, attempt.job_id)
    assert (job.state, job.failure_kind) == (JobState.FAILED, FailureKind.USER)
    assert "'WANDB_API_KEY', which team red does not have" in str(job.failure_message)


@pytest.mark.db
def test_end_that_the_database_refuses__is_a_failure_with_its_reason(
    postgres_database: Database, tmp_path: Path
) -> None:
    attempt = _attempt(postgres_database, tmp_path)
    refused = GroupEnding(RankResult(0, summary={"final_eval_loss": float("nan")}), is_clean=True)
    assert attempt.end(refused) is not None
    job = jobs.read(postgres_database, attempt.job_id)
    assert (job.state, job.failure_kind) == (JobState.FAILED, FailureKind.USER)
    assert str(job.failure_message).startswith("how it ended can't be stored: InvalidTextRepresentation: invalid input")


def test_report_that_the_database_refuses__ends_the_attempt_with_its_reason(database: Database, tmp_path: Path) -> None:
    attempt = _attempt(database, tmp_path)
    attempt.record(EpochRecord(1, 10, 1.0, 0.5, 1.0, 0.5, 0.1, 1.0, 100.0, 2**80, 0))
    assert not attempt.may_publish()
    assert attempt.end(SUCCESS) is RunnerOutcome.RANKS_SPENT
    job = jobs.read(database, attempt.job_id)
    assert (job.state, job.attempt) == (JobState.FAILED, 1), "it would be refused again"
    assert str(job.failure_message).startswith("what it reported can't be stored: ")
