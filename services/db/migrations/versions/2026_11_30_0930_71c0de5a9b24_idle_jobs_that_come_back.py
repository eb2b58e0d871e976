"""how often jobs were sent back for idle GPUs, and when they were paused for that.

Revision: 71c0de5a9b24
Follows: 8e2c61f0ab47
"""

import sqlalchemy as sa
from alembic import op

from xsam.services.db import base

revision = "71c0de5a9b24"
down_revision = "8e2c61f0ab47"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("idle_requeues", sa.Integer(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("idle_paused_at", base.UtcDateTime(), nullable=True))


def downgrade() -> None:
    # Not in a batch: SQLite would make the table anew, and what belongs to its rows would go with the old one.
    op.drop_column("jobs", "idle_paused_at")
    op.drop_column("jobs", "idle_requeues")
