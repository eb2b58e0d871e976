"""kinds of gpus.

Revision: 9ce9df9ee75e
Follows: 16a77f22cb61
"""

import sqlalchemy as sa
from alembic import op

revision = "9ce9df9ee75e"
down_revision = "16a77f22cb61"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("cluster_nodes", sa.Column("gpu_kind", sa.String(length=63), nullable=True))
    op.add_column("jobs", sa.Column("gpu_kind", sa.String(length=63), nullable=True))


def downgrade() -> None:
    # Not in a batch: SQLite would make the table of jobs anew, and what belongs to jobs would go with the old one.
    op.drop_column("jobs", "gpu_kind")
    op.drop_column("cluster_nodes", "gpu_kind")
