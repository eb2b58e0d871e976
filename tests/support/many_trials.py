"""Large studies for tests and pictures: a few trials by hand, the others as copies of their rows."""

import math
import random
from datetime import timedelta
from typing import Any

from sqlalchemy import insert, inspect, select
from sqlalchemy.orm import Session

from tests.support.studies import ALICE, HandRunner, submit
from xsam.services.db.base import new_id
from xsam.services.db.session import Database
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import FailureKind, JobState
from xsam.services.studies.models import Trial
from xsam.services.teams.roles import Actor

RHO, STEPS, LR = "optimizer.rho", "optimizer.ascent_steps", "optimizer.base.lr"
SPACE: dict[str, Any] = {
    RHO: {"type": "log_uniform", "low": 0.01, "high": 0.5},
    STEPS: {"type": "choice", "values": [1, 2, 3, 5]},
    LR: {"type": "log_uniform", "low": 0.001, "high": 0.3},
}
_SHARE_FAILED = 0.03


def study_of(
    database: Database, num: int, *, actor: Actor = ALICE, name: str = "rho-k-lr", has_ended: bool = False
) -> str:
    """Return the id of a study with so many ended search trials of three arms, drawn from a smooth landscape.

    Args:
        database: already migrated.
        num: trials of the search.
        actor: whose study.
        name: of the study.
        has_ended: whether it has succeeded, with confirmation on five seeds.
    """
    base = {
        "dataset": {"name": "synthetic", "num_train": 640, "num_eval": 64},
        "batch_size": 32,
        "epochs": 10,
        "optimizer": {"variant": "xsam", "base": {"name": "sgd", "lr": 0.05}},
    }
    study_id = submit(
        database, actor=actor, name=name, base=base, space=SPACE, control=True, num_trials=max(num // 3, 1)
    )
    runner = HandRunner.start(database, study_id)
    draw = random.Random(7)  # the same picture every time
    patterns = [_pattern(runner, arm, draw) for arm in range(3)]
    with database.unit_of_work() as session:
        _copy(session, patterns, num - len(patterns), draw)
    if has_ended:
        _confirm(runner, draw)
        runner.end()
    return study_id


def value_at(arm: str, point: dict[str, Any], draw: random.Random) -> float:
    """Return the accuracy of a point: best near rho 0.08, one step and lr 0.05; xsam a little ahead."""
    lr = -0.08 * math.log10(point[LR] / 0.05) ** 2
    if arm == "sgd":
        return 0.885 + lr + draw.gauss(0, 0.004)
    rho = -0.12 * math.log10(point[RHO] / (0.08 if arm == "xsam" else 0.05)) ** 2
    ahead = 0.93 if arm == "xsam" else 0.915
    return max(ahead + lr + rho - 0.006 * point.get(STEPS, 1) + draw.gauss(0, 0.004), 0.1)


def _point(draw: random.Random) -> dict[str, Any]:
    return {
        RHO: float(f"{0.01 * 50 ** draw.random():.6g}"),
        STEPS: draw.choice([1, 2, 3, 5]),
        LR: float(f"{0.001 * 300 ** draw.random():.6g}"),
    }


def _pattern(runner: HandRunner, arm: int, draw: random.Random) -> str:
    point = _point(draw)
    if arm == 1:  # sgd has neither a radius nor steps
        point = {LR: point[LR]}
    return runner.run(point, 0.8, arm=arm, config=0)


def _copy(session: Session, patterns: list[str], num: int, draw: random.Random) -> None:
    originals = [
        (_values(job), _values(trial))
        for job, trial in session.execute(
            select(Job, Trial).join(Trial, Trial.job_id == Job.id).where(Job.id.in_(patterns)).order_by(Trial.number)
        )
    ]
    jobs, trials = [], []
    for number in range(len(patterns) + 1, len(patterns) + num + 1):
        job, trial = originals[(number - 1) % len(originals)]
        is_failed = draw.random() < _SHARE_FAILED
        point = {path: value for path, value in _point(draw).items() if path in trial["params"]}
        value = None if is_failed else value_at(trial["arm"], point, draw)
        at = {name: job[name] + timedelta(seconds=3 * number) for name in ("created_at", "started_at", "finished_at")}
        failure = {"failure_kind": FailureKind.DIVERGED, "failure_message": "loss is nan"} if is_failed else {}
        state = JobState.FAILED if is_failed else JobState.SUCCEEDED
        summary = None if is_failed else {**job["summary"], "train_s": 2 + 4 * draw.random()}
        job_id = new_id()
        jobs.append({**job, **at, **failure, "id": job_id, "state": state, "summary": summary})
        cost = 200 * (1 + point.get(STEPS, 0)) if not is_failed else 60
        trials.append(
            {**trial, "job_id": job_id, "number": number, "config": number, "params": point, "value": value}
            | {"grad_evals": cost}
        )
    if jobs:
        session.execute(insert(Job), jobs)
        session.execute(insert(Trial), trials)


def _values(row: Any) -> dict[str, Any]:
    return {attribute.key: getattr(row, attribute.key) for attribute in inspect(type(row)).column_attrs}


def _confirm(runner: HandRunner, draw: random.Random) -> None:
    best: dict[str, Any] = {}
    with runner.database.read() as session:
        query = select(Trial).where(Trial.study_id == runner.study_id, Trial.value.is_not(None)).order_by(Trial.value)
        for trial in session.scalars(query):
            best[trial.arm] = (trial.config, trial.params)
    for arm, name in enumerate(("xsam", "sgd", "sam")):
        config, point = best[name]
        for seed in range(1, 6):
            value = value_at(name, point, draw)
            runner.run(point, value, arm=arm, config=config, seed=seed, phase="confirm")
