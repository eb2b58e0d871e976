"""what jobs' GPUs do, and what is done where they do nothing.

Revision: c4a9e17f3d20
Follows: 8b21f6d0c4e7
"""

import sqlalchemy as sa
from alembic import op

from xsam.services.db import base

revision = "c4a9e17f3d20"
down_revision = "8b21f6d0c4e7"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("gpu_utilization", sa.Double(), nullable=True))
    op.add_column("jobs", sa.Column("gpu_used_bytes", base.BigId, nullable=True))
    op.add_column("jobs", sa.Column("gpu_total_bytes", base.BigId, nullable=True))
    op.add_column("jobs", sa.Column("gpu_seen_at", base.UtcDateTime(), nullable=True))
    op.add_column("jobs", sa.Column("gpu_busy_at", base.UtcDateTime(), nullable=True))
    op.add_column("jobs", sa.Column("idle_warned_at", base.UtcDateTime(), nullable=True))
    op.add_column("teams", sa.Column("idle", base.JsonColumn, nullable=True))


def downgrade() -> None:
    # Not in a batch: SQLite would make the tables anew, and what belongs to their rows would go with the old ones.
    op.drop_column("teams", "idle")
    for name in (
        "idle_warned_at",
        "gpu_busy_at",
        "gpu_seen_at",
        "gpu_total_bytes",
        "gpu_used_bytes",
        "gpu_utilization",
    ):
        op.drop_column("jobs", name)
