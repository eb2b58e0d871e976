"""secrets of teams.

Revision: b7e04d9a53c1
Follows: 71c0de5a9b24
"""

import sqlalchemy as sa
from alembic import op

from xsam.services.db import base

revision = "b7e04d9a53c1"
down_revision = "71c0de5a9b24"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "secrets",
        sa.Column("team", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("sealed", sa.String(), nullable=False),
        sa.Column("set_by", sa.String(length=63), nullable=False),
        sa.Column("set_at", base.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("team", "name", name=op.f("pk_secrets")),
    )


def downgrade() -> None:
    op.drop_table("secrets")
