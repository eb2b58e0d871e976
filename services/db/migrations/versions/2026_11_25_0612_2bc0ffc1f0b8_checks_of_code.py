"""Checks of jobs' own code, before the jobs are queued.

Revision: 2bc0ffc1f0b8
Follows: cf3a573d9912
"""

import sqlalchemy as sa
from alembic import op

from xsam.services.db import base

revision = "2bc0ffc1f0b8"
down_revision = "cf3a573d9912"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "code_checks",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("team", sa.String(), nullable=False),
        sa.Column("made_by", sa.String(), nullable=False),
        sa.Column("spec", base.JsonColumn, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("answer", base.JsonColumn, nullable=True),
        sa.Column("created_at", base.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_code_checks")),
    )
    with op.batch_alter_table("code_checks", schema=None) as batch_op:
        batch_op.create_index("ix_code_checks_state", ["state", "created_at"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("code_checks", schema=None) as batch_op:
        batch_op.drop_index("ix_code_checks_state")

    op.drop_table("code_checks")
