"""usage, leader and the last decision.

Revision: 63d8c10004dc
Follows: 2cef282b6d7b
"""

import sqlalchemy as sa
from alembic import op

from xsam.services.db import base

revision = "63d8c10004dc"
down_revision = "2cef282b6d7b"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "leader_leases",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("holder", sa.String(length=100), nullable=False),
        sa.Column("term", sa.Integer(), nullable=False),
        sa.Column("since", base.UtcDateTime(), nullable=False),
        sa.Column("expires_at", base.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leader_leases")),
    )
    op.create_table(
        "queue_views",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("planned_at", base.UtcDateTime(), nullable=False),
        sa.Column("num_queued", sa.Integer(), nullable=False),
        sa.Column("line", base.JsonColumn, nullable=False),
        sa.Column("reasons", base.JsonColumn, nullable=False),
        sa.Column("kinds", base.JsonColumn, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_queue_views")),
    )
    op.create_table(
        "usage_days",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("team", sa.String(length=63), nullable=False),
        sa.Column("user_name", sa.String(length=63), nullable=False),
        sa.Column("gpu_s", sa.Double(), nullable=False),
        sa.Column("cpu_s", sa.Double(), nullable=False),
        sa.Column("num_attempts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("day", "team", "user_name", name=op.f("pk_usage_days")),
    )
    op.create_table(
        "usage_shares",
        sa.Column("team", sa.String(length=63), nullable=False),
        sa.Column("user_name", sa.String(length=63), nullable=False),
        sa.Column("value_resource_s", sa.Double(), nullable=False),
        sa.Column("as_of", base.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("team", "user_name", name=op.f("pk_usage_shares")),
    )


def downgrade() -> None:
    op.drop_table("usage_shares")
    op.drop_table("usage_days")
    op.drop_table("queue_views")
    op.drop_table("leader_leases")
