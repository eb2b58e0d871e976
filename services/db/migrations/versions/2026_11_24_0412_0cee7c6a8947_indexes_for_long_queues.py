"""indexes for long queues.

Revision: 0cee7c6a8947
Follows: 63d8c10004dc
"""

import sqlalchemy as sa
from alembic import op

from xsam.services.db import base

revision = "0cee7c6a8947"
down_revision = "63d8c10004dc"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_jobs_name_created", "jobs", ["name", "created_at", "id"])
    line: list[str | sa.TextClause] = [sa.text("priority DESC"), "created_at", "id"]
    op.create_index("ix_jobs_line", "jobs", ["state", *line])
    op.create_index("ix_jobs_owner_line", "jobs", ["state", "team", "submitted_by", *line])
    op.add_column("queue_views", sa.Column("positions", base.JsonColumn, server_default="{}", nullable=False))


def downgrade() -> None:
    op.drop_column("queue_views", "positions")
    op.drop_index("ix_jobs_owner_line", "jobs")
    op.drop_index("ix_jobs_line", "jobs")
    op.drop_index("ix_jobs_name_created", "jobs")
