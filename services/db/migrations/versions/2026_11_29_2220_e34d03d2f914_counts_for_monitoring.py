"""counts for monitoring.

Revision: e34d03d2f914
Follows: ea457cd200a7
"""

import sqlalchemy as sa
from alembic import op

from xsam.services.db import base

revision = "e34d03d2f914"
down_revision = "ea457cd200a7"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "outcome_counts",
        sa.Column("team", sa.String(length=63), nullable=False),
        sa.Column("user_name", sa.String(length=63), nullable=False),
        sa.Column("outcome", sa.String(length=32), nullable=False),
        sa.Column("num_attempts", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("team", "user_name", "outcome", name=op.f("pk_outcome_counts")),
    )
    with op.batch_alter_table("dispatchers", schema=None) as batch_op:
        batch_op.add_column(sa.Column("counters", base.JsonColumn, nullable=True))

    with op.batch_alter_table("queue_views", schema=None) as batch_op:
        batch_op.add_column(sa.Column("waiting", base.JsonColumn, nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("queue_views", schema=None) as batch_op:
        batch_op.drop_column("waiting")

    with op.batch_alter_table("dispatchers", schema=None) as batch_op:
        batch_op.drop_column("counters")

    op.drop_table("outcome_counts")
