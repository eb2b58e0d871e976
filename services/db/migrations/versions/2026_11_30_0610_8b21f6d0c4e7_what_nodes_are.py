"""what nodes are, and what jobs ask of them.

Revision: 8b21f6d0c4e7
Follows: 7d1e5c0a9b36
"""

import sqlalchemy as sa
from alembic import op

from xsam.services.db import base

revision = "8b21f6d0c4e7"
down_revision = "7d1e5c0a9b36"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("cluster_nodes", sa.Column("gpu_memory_gb", sa.Double(), nullable=True))
    op.add_column("cluster_nodes", sa.Column("labels", base.JsonColumn, nullable=True))
    op.add_column("jobs", sa.Column("min_gpu_memory_gb", sa.Double(), nullable=True))
    op.add_column("jobs", sa.Column("node_labels", base.JsonColumn, nullable=True))
    op.add_column("teams", sa.Column("quota_gpus_by_kind", base.JsonColumn, nullable=True))


def downgrade() -> None:
    # Not in a batch: SQLite would make the tables anew, and what belongs to their rows would go with the old ones.
    op.drop_column("teams", "quota_gpus_by_kind")
    op.drop_column("jobs", "node_labels")
    op.drop_column("jobs", "min_gpu_memory_gb")
    op.drop_column("cluster_nodes", "labels")
    op.drop_column("cluster_nodes", "gpu_memory_gb")
