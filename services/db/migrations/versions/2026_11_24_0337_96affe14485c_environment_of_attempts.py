"""environment of attempts.

Revision: 96affe14485c
Follows: e6461a9a9669
"""

import sqlalchemy as sa
from alembic import op

from xsam.services.db import base

revision = "96affe14485c"
down_revision = "e6461a9a9669"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("job_attempts", schema=None) as batch_op:
        batch_op.add_column(sa.Column("environment", base.JsonColumn, nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("job_attempts", schema=None) as batch_op:
        batch_op.drop_column("environment")
