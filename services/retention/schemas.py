"""What the API shows of retention."""

from collections.abc import Iterable

from sqlalchemy.orm import Session

from xsam.services.artifacts.schemas import GoneRead
from xsam.services.retention.models import StoredFiles
from xsam.services.retention.rules import Forgotten, Kind
from xsam.services.schemas import Read


class ForgottenRead(Read):
    """How much of a kind of a team may go, or has gone."""

    team: str
    kind: Kind
    num: int
    """Jobs, bundles or locks."""
    num_bytes: int


class RetentionRead(Read):
    """What would be forgotten now."""

    items: list[ForgottenRead]
    num_unmeasured: int
    """Ended jobs whose files nobody has measured yet; nothing of them goes before."""


class CollectedRead(Read):
    """What a call has forgotten."""

    items: list[ForgottenRead]
    has_more: bool
    """There is more to forget: repeat the call."""


def gone(session: Session, job_id: str) -> GoneRead:
    """Return since when parts of a job are gone."""
    row = session.get(StoredFiles, job_id)
    if row is None:
        return GoneRead()
    return GoneRead(
        checkpoints_at=row.checkpoints_gone_at,
        weights_at=row.weights_gone_at,
        logs_at=row.logs_gone_at,
        metrics_thinned_at=row.metrics_thinned_at,
    )


def forgotten(found: Iterable[Forgotten]) -> list[ForgottenRead]:
    """Return documents."""
    return [ForgottenRead.model_validate(one) for one in found]
