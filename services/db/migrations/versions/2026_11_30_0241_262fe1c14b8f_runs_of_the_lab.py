"""runs of the lab.

Revision: 262fe1c14b8f
Follows: 373ec948a1aa
"""

import sqlalchemy as sa
from alembic import op

from xsam.services.db import base

revision = "262fe1c14b8f"
down_revision = "373ec948a1aa"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "lab_runs",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("team", sa.String(length=63), nullable=False),
        sa.Column("submitted_by", sa.String(length=63), nullable=False),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("figure", sa.String(length=16), nullable=False),
        sa.Column("scale", sa.String(length=16), nullable=False),
        sa.Column("spec", base.JsonColumn, nullable=False),
        sa.Column("stages", base.JsonColumn, nullable=False),
        sa.Column("work", base.JsonColumn, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("failure", sa.String(), nullable=True),
        sa.Column("verdict", sa.String(length=16), nullable=True),
        sa.Column("finding", base.JsonColumn, nullable=True),
        sa.Column("created_at", base.UtcDateTime(), nullable=False),
        sa.Column("finished_at", base.UtcDateTime(), nullable=True),
        sa.CheckConstraint("state IN ('running', 'succeeded', 'failed', 'cancelled')", name=op.f("ck_lab_runs_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lab_runs")),
        sa.UniqueConstraint("team", "idempotency_key", name=op.f("uq_lab_runs_team_idempotency_key")),
    )
    op.create_index("ix_lab_runs_created", "lab_runs", ["created_at", "id"], unique=False)
    op.create_index("ix_lab_runs_state", "lab_runs", ["state"], unique=False)


def downgrade() -> None:
    op.drop_table("lab_runs")
