"""losses around checkpoints.

Revision: 8e2c61f0ab47
Follows: 30de1f511d4e
"""

import sqlalchemy as sa
from alembic import op

from xsam.services.db import base

revision = "8e2c61f0ab47"
down_revision = "30de1f511d4e"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "loss_planes",
        sa.Column("job_id", sa.String(length=12), nullable=False),
        sa.Column("checkpoint", sa.String(length=100), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("losses", base.JsonColumn, nullable=False),
        sa.Column("found", base.JsonColumn, nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_loss_planes_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "checkpoint", name=op.f("pk_loss_planes")),
    )


def downgrade() -> None:
    op.drop_table("loss_planes")
