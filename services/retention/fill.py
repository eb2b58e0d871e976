"""How full the artifact store is, and which team has how much on it."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from xsam.services.artifacts.models import Checkpoint
from xsam.services.bundles.models import BundleRow
from xsam.services.db.clock import db_now
from xsam.services.db.upsert import upsert
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import TERMINAL_STATES
from xsam.services.retention.models import StoredFiles, StoreFill
from xsam.services.retention.rules import Kind
from xsam.services.stores.store import ArtifactStore


def note(session: Session, store: ArtifactStore) -> None:
    """Write down how full it is now, for readers, who would otherwise add up all jobs each time."""
    total_bytes, free_bytes = store.room()
    row = {
        "root": store.name,
        "total_bytes": total_bytes,
        "free_bytes": free_bytes,
        "measured_at": session.execute(select(db_now())).scalar_one(),
        "teams": _of_teams(session),
    }
    upsert(session, StoreFill, [row], keys=("root",))


def read(session: Session) -> Sequence[StoreFill]:
    """Return how full each artifact store was last."""
    return session.scalars(select(StoreFill).order_by(StoreFill.root)).all()


def _of_teams(session: Session) -> dict[str, dict[str, int]]:
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    kinds = (Kind.CHECKPOINTS, Kind.WEIGHTS, Kind.LOGS)
    columns = (StoredFiles.checkpoint_bytes, StoredFiles.weights_bytes, StoredFiles.log_bytes)
    ended = select(Job.team, *map(func.sum, columns)).join(StoredFiles, StoredFiles.job_id == Job.id)
    for team, *sizes in session.execute(ended.group_by(Job.team)):
        found[team].update({kind: int(size) for kind, size in zip(kinds, sizes, strict=True)})
    live = select(Job.team, func.sum(Checkpoint.size_bytes)).join(Checkpoint, Checkpoint.job_id == Job.id)
    for team, size in session.execute(live.where(Job.state.not_in(TERMINAL_STATES)).group_by(Job.team)):
        found[team][Kind.CHECKPOINTS] += int(size)
    sent = select(BundleRow.team, func.sum(BundleRow.packed_bytes)).group_by(BundleRow.team)
    for team, size in session.execute(sent):
        found[team][Kind.BUNDLES] += int(size)
    return {team: dict(sizes) for team, sizes in found.items()}
