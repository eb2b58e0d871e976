"""Forgetting what may go, a part at a time, so that a process that is killed anywhere leaves nothing that misleads.

The order is always the same. Of files: a row says that they are gone; they are moved into the store's trash, while the
job's row is locked and it is certain that it has ended; the trash is emptied; the row says that nothing is left. Of
rows: the files first, so that none are left that nobody knows of. Whoever comes next goes on where this one ended.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session, aliased

from xsam.services.artifacts import service as artifacts
from xsam.services.artifacts import store as files
from xsam.services.bundles import service as bundles
from xsam.services.db.clock import db_now, utc_now
from xsam.services.db.session import Database
from xsam.services.db.upsert import upsert
from xsam.services.jobs import forgetting
from xsam.services.jobs.models import KIND_STUDY, KIND_TRIAL, Job
from xsam.services.metrics import service as metrics
from xsam.services.requirements import service as requirements
from xsam.services.retention import due
from xsam.services.retention.due import Due
from xsam.services.retention.models import StoredFiles
from xsam.services.retention.rules import OF_FILES, Forgotten, Kind, RulesOfTeams, of_service
from xsam.services.settings import ArtifactSettings
from xsam.services.stores.store import ArtifactStore
from xsam.services.studies.models import Trial
from xsam.services.teams import limits

POINTS = 200
"""Epochs and searches that stay of thinned metrics."""
PART = 50
"""Jobs in one transaction."""
_ORPHANED_S = 86_400.0
"""A bundle's file comes before its row; one without a row is deleted when it is so old."""


def rules(session: Session, settings: ArtifactSettings) -> RulesOfTeams:
    """Return what is kept for how long, team by team."""
    return RulesOfTeams(of_service(settings), limits.retention(session))


def preview(session: Session, rules: RulesOfTeams) -> list[Forgotten]:
    """Return what `collect` would forget now."""
    unused = [one for kind in (Kind.BUNDLES, Kind.ENVIRONMENTS) for one in _unused(session, rules, kind)]
    return summed([*due.of_jobs(session, rules), *unused])


def collect(
    database: Database,
    store: ArtifactStore,
    settings: ArtifactSettings,
    *,
    limit: int = 10 * PART,
    is_stopped: Callable[[], bool] = bool,
) -> list[Forgotten]:
    """Forget what may go, at most so many things; returns what is gone.

    Safe to call from several processes at once.

    Args:
        database: whose jobs they are.
        store: where their files are.
        settings: the service's rules; teams have their own in their rows.
        limit: things that are forgotten at most.
        is_stopped: asked between two parts.
    """
    store.empty_trash()
    measure(database, store, limit=limit)
    with database.read() as session:
        current = rules(session, settings)
        wanted = due.of_jobs(session, current)[:limit]
    gone: list[Due] = []
    for step in _steps(database, store, current, wanted, limit):
        if is_stopped():
            break
        gone += step()
    store.empty_trash()
    return summed(gone)


def _steps(
    database: Database, store: ArtifactStore, rules: RulesOfTeams, wanted: Sequence[Due], limit: int
) -> Iterator[Callable[[], list[Due]]]:
    """Yield what is to be done, each in few small transactions."""
    for part in _parts([one for one in wanted if one.kind in OF_FILES]):
        yield partial(_forget_files, database, store, part)
    for one in wanted:
        if one.kind is Kind.METRICS:
            yield partial(_thin, database, one)
    for part in _parts([one for one in wanted if one.kind is Kind.ROWS]):
        yield partial(_forget_rows, database, store, part)
    for kind in (Kind.BUNDLES, Kind.ENVIRONMENTS):
        if rules.names(kind):
            yield partial(_forget_unused, database, rules, kind, limit=limit)
    if rules.names(Kind.BUNDLES):
        yield partial(_sweep_bundles, database, store)


def measure(database: Database, store: ArtifactStore, *, limit: int) -> int:
    """Note how large the files of jobs are that ended since they were last measured; returns of how many."""
    with database.read() as session:
        jobs = due.unmeasured(session, limit=limit)
    for part in _parts(jobs):
        sizes = {job_id: files.measure(store, job_id) for job_id in part}
        with database.unit_of_work() as session:
            now = session.execute(select(db_now())).scalar_one()
            there = session.scalars(select(Job.id).where(Job.id.in_(part)).with_for_update(read=True)).all()
            rows = [
                {
                    "job_id": job_id,
                    "checkpoint_bytes": sizes[job_id].checkpoints,
                    "weights_bytes": sizes[job_id].weights,
                    "log_bytes": sizes[job_id].logs,
                    "measured_at": now,
                    # It has ended again since: what was gone then may be there anew.
                    "checkpoints_gone_at": None,
                    "weights_gone_at": None,
                    "logs_gone_at": None,
                    "metrics_thinned_at": None,
                }
                for job_id in there
            ]
            upsert(session, StoredFiles, rows, keys=("job_id",))
    return len(jobs)


def summed(found: Sequence[Due]) -> list[Forgotten]:
    """Return how much there is of each kind of each team."""
    nums, sizes = Counter[tuple[str, Kind]](), Counter[tuple[str, Kind]]()
    for one in found:
        nums[one.team, one.kind] += 1
        sizes[one.team, one.kind] += one.num_bytes
    return [Forgotten(team, kind, nums[team, kind], sizes[team, kind]) for team, kind in sorted(nums)]


_SIZES = {Kind.CHECKPOINTS: "checkpoint_bytes", Kind.WEIGHTS: "weights_bytes", Kind.LOGS: "log_bytes"}
_GONE = {Kind.CHECKPOINTS: "checkpoints_gone_at", Kind.WEIGHTS: "weights_gone_at", Kind.LOGS: "logs_gone_at"}


def _forget_files(database: Database, store: ArtifactStore, wanted: Sequence[Due]) -> list[Due]:
    kinds: defaultdict[str, set[Kind]] = defaultdict(set)
    for one in wanted:
        kinds[one.job_id].add(one.kind)
    with database.unit_of_work() as session:
        for job_id in _lock_ended(session, kinds):
            _note(session, job_id, {_GONE[kind]: utc_now() for kind in kinds[job_id]})
    with database.unit_of_work() as session:
        ended = _lock_ended(session, kinds)
        artifacts.forget_checkpoints(session, [one for one in ended if Kind.CHECKPOINTS in kinds[one]])
        for job_id in ended:
            chosen = kinds[job_id]
            files.set_aside(
                store,
                job_id,
                checkpoints=Kind.CHECKPOINTS in chosen,
                weights=Kind.WEIGHTS in chosen,
                logs=Kind.LOGS in chosen,
            )
        for job_id in set(kinds) - set(ended):  # taken up again a moment ago: its files are there
            _note(session, job_id, {_GONE[kind]: None for kind in kinds[job_id]})
    store.empty_trash()
    with database.unit_of_work() as session:
        for job_id in ended:
            _note(session, job_id, {_SIZES[kind]: 0 for kind in kinds[job_id]})
    return [one for one in wanted if one.job_id in set(ended)]


def _lock_ended(session: Session, job_ids: Any) -> list[str]:
    """Return those that have ended; they stay so until the caller's transaction ends."""
    study = aliased(Job)
    jobs = select(Job.id, Trial.study_id).outerjoin(Trial, Trial.job_id == Job.id).where(Job.id.in_(list(job_ids)))
    rows = session.execute(jobs).all()
    studies = sorted({row.study_id for row in rows if row.study_id is not None})
    for ids in (studies, sorted(row.id for row in rows)):
        session.execute(select(Job.id).where(Job.id.in_(ids)).order_by(Job.id).with_for_update()).all()
    query = due.with_studies(select(Job.id), study).where(Job.id.in_(list(job_ids)), *due.is_ended(study))
    return list(session.scalars(query.order_by(Job.id)))


def _note(session: Session, job_id: str, values: dict[str, Any]) -> None:
    session.execute(update(StoredFiles).where(StoredFiles.job_id == job_id).values(values))


def _thin(database: Database, one: Due) -> list[Due]:
    with database.unit_of_work() as session:
        if not _lock_ended(session, [one.job_id]):
            return []
        metrics.thin_stored(session, one.job_id, points=POINTS)
        none = dict.fromkeys(_SIZES.values(), 0)
        now = session.execute(select(db_now())).scalar_one()
        if session.get(StoredFiles, one.job_id) is None:  # it never ran
            session.add(StoredFiles(job_id=one.job_id, measured_at=now, **none))
            session.flush()
        _note(session, one.job_id, {"metrics_thinned_at": now})
    return [one]


def _forget_rows(database: Database, store: ArtifactStore, wanted: Sequence[Due]) -> list[Due]:
    """Forget jobs: their files, then trials, then what is no trial; a study once it has no trials any more."""
    _forget_files(database, store, [Due(one.job_id, one.team, kind, 0) for one in wanted for kind in OF_FILES])
    with database.unit_of_work() as session:
        ids = _lock_ended(session, [one.job_id for one in wanted])
        kinds = {row.id: row.kind for row in session.execute(select(Job.id, Job.kind).where(Job.id.in_(ids)))}
        gone = set(forgetting.forget(session, [job_id for job_id in ids if kinds[job_id] == KIND_TRIAL]))
        rest = [job_id for job_id in ids if kinds[job_id] != KIND_TRIAL]
        busy = set(session.scalars(select(Trial.study_id).where(Trial.study_id.in_(rest)).distinct()))
        gone |= set(forgetting.forget(session, [job_id for job_id in rest if job_id not in busy]))
    return [one for one in wanted if one.job_id in gone]


def _unused(session: Session, rules: RulesOfTeams, kind: Kind) -> list[Due]:
    """Return bundles or locks that are old enough and that no job names."""
    days = min((one.days[kind] for one in rules.all() if kind in one.days), default=None)
    if days is None:
        return []
    now = session.execute(select(db_now())).scalar_one()
    if kind is Kind.BUNDLES:
        rows: Sequence[Any] = bundles.find_old(session, days=days)
        found = [(row.id, row.id, row.team, row.packed_bytes, row.created_at) for row in rows]
    else:
        rows = requirements.find_old(session, days=days)
        found = [(row.id, row.lock_id, row.team, len(row.lock or ""), row.created_at) for row in rows]
    if not found:
        return []
    named = _named(session, kind)
    return [
        Due(name, team, kind, num_bytes)
        for name, used_as, team, num_bytes, made_at in found
        if (team, used_as) not in named and rules.of(team).is_over(kind, (now - made_at).total_seconds() / 86_400.0)
    ]


def _named(session: Session, kind: Kind) -> set[tuple[str, str]]:
    """Return which bundles or locks jobs of which team name."""
    of_job, of_study = (
        (Job.spec["code", "bundle"], Job.spec["base", "code", "bundle"])
        if kind is Kind.BUNDLES
        else (Job.spec["requirements", "lock"], Job.spec["base", "requirements", "lock"])
    )
    own = select(Job.team, of_job.as_string()).where(Job.kind != KIND_STUDY).distinct()
    studies = select(Job.team, of_study.as_string()).where(Job.kind == KIND_STUDY).distinct()
    return {(row[0], row[1]) for query in (own, studies) for row in session.execute(query) if row[1] is not None}


def _forget_unused(database: Database, rules: RulesOfTeams, kind: Kind, *, limit: int) -> list[Due]:
    with database.read() as session:
        wanted = _unused(session, rules, kind)[:limit]
    if not wanted:
        return []
    with database.unit_of_work() as session:
        for one in wanted:
            if kind is Kind.BUNDLES:
                bundles.lock(session, one.team, one.job_id)
            else:
                requirements.lock(session, one.job_id)
        still = {(one.team, one.job_id) for one in _unused(session, rules, kind)}
        gone = [one for one in wanted if (one.team, one.job_id) in still]
        for one in gone:
            if kind is Kind.BUNDLES:
                bundles.forget(session, one.team, one.job_id)
            else:
                requirements.forget(session, one.job_id)
    return gone


def _sweep_bundles(database: Database, store: ArtifactStore) -> list[Due]:
    """Delete files of bundles that no team has any more."""
    with database.read() as session:
        known = {bundles.file_of(bundle_id) for bundle_id in bundles.known(session)}
    for file in store.list(bundles.FOLDER):
        if file.name.endswith(bundles.SUFFIX) and file.name not in known:
            store.delete_if_old(file.name, older_than_s=_ORPHANED_S)
    return []


def _parts(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (values[start : start + PART] for start in range(0, len(values), PART))
