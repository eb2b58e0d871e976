"""cordons of nodes.

Revision: 16a77f22cb61
Follows: f0ecfb11ad39
"""

import sqlalchemy as sa
from alembic import op

from xsam.services.db import base

revision = "16a77f22cb61"
down_revision = "f0ecfb11ad39"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cordons",
        sa.Column("node", sa.String(length=255), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("set_by", sa.String(length=63), nullable=False),
        sa.Column("since", base.UtcDateTime(), nullable=False),
        sa.Column("drain_at", base.UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("node", name=op.f("pk_cordons")),
    )


def downgrade() -> None:
    op.drop_table("cordons")
