"""what Ray holds for others, and GPUs set aside.

Revision: cf3a573d9912
Follows: 2f0f683508c9
"""

import sqlalchemy as sa
from alembic import op

from xsam.services.db import base

revision = "cf3a573d9912"
down_revision = "2f0f683508c9"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("cluster_nodes", schema=None) as batch_op:
        batch_op.add_column(sa.Column("held_by_others", base.JsonColumn, nullable=True))
        batch_op.add_column(sa.Column("set_aside", sa.String(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("cluster_nodes", schema=None) as batch_op:
        batch_op.drop_column("set_aside")
        batch_op.drop_column("held_by_others")
