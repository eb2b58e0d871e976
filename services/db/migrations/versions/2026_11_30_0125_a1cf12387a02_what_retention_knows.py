"""what retention knows: files of ended jobs, how full the store is, what teams keep.

Revision: a1cf12387a02
Follows: 5d0b7e41c2f3
"""

import sqlalchemy as sa
from alembic import op

from xsam.services.db import base

revision = "a1cf12387a02"
down_revision = "5d0b7e41c2f3"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "store_fills",
        sa.Column("root", sa.String(), nullable=False),
        sa.Column("total_bytes", base.BigId, nullable=False),
        sa.Column("free_bytes", base.BigId, nullable=False),
        sa.Column("measured_at", base.UtcDateTime(), nullable=False),
        sa.Column("teams", base.JsonColumn, nullable=False),
        sa.PrimaryKeyConstraint("root", name=op.f("pk_store_fills")),
    )
    op.create_table(
        "stored_files",
        sa.Column("job_id", sa.String(length=12), nullable=False),
        sa.Column("checkpoint_bytes", base.BigId, nullable=False),
        sa.Column("weights_bytes", base.BigId, nullable=False),
        sa.Column("log_bytes", base.BigId, nullable=False),
        sa.Column("measured_at", base.UtcDateTime(), nullable=False),
        sa.Column("checkpoints_gone_at", base.UtcDateTime(), nullable=True),
        sa.Column("weights_gone_at", base.UtcDateTime(), nullable=True),
        sa.Column("logs_gone_at", base.UtcDateTime(), nullable=True),
        sa.Column("metrics_thinned_at", base.UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_stored_files_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_stored_files")),
    )
    op.add_column("teams", sa.Column("retention", base.JsonColumn, nullable=True))


def downgrade() -> None:
    op.drop_column("teams", "retention")
    op.drop_table("stored_files")
    op.drop_table("store_fills")
