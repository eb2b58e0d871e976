"""deadlines of jobs.

Revision: 2cef282b6d7b
Follows: 96affe14485c
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from xsam.services.db import base

revision = "2cef282b6d7b"
down_revision = "96affe14485c"
branch_labels = None
depends_on = None


_LONG_AGO = "1970-01-01 00:00:00.000000+00:00"


def _columns() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("max_run_s", sa.Double(), nullable=True),
        sa.Column("max_queue_s", sa.Double(), nullable=True),
        sa.Column("ran_s", sa.Double(), server_default="0", nullable=False),
        sa.Column("deadline_at", base.UtcDateTime(), nullable=True),
        sa.Column("reported_at", base.UtcDateTime(), nullable=True),
        sa.Column("budget_after", sa.Integer(), server_default="0", nullable=False),
    )


def upgrade() -> None:
    # Columns one by one, never in a batch: on SQLite a batch copies the table and drops the old one, and with it, by
    # their foreign keys, all attempts, events and measurements.
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    long_ago = _LONG_AGO.removesuffix("+00:00") if is_sqlite else _LONG_AGO
    op.add_column("jobs", sa.Column("state_since", base.UtcDateTime(), server_default=long_ago, nullable=False))
    for column in _columns():
        op.add_column("jobs", column)
    # A paused job has no record of when it was paused: its patience starts now.
    now = "strftime('%Y-%m-%d %H:%M:%f000', 'now')" if is_sqlite else "now()"
    op.execute(f"UPDATE jobs SET state_since = coalesce(finished_at, {now}), reported_at = {now}")  # noqa: S608
    op.drop_index("ix_jobs_queue", "jobs")
    op.create_index("ix_jobs_deadline", "jobs", ["deadline_at"])
    op.create_index("ix_jobs_due", "jobs", ["state", "scheduled_at"])
    op.create_index("ix_jobs_state_since", "jobs", ["state", "state_since"])


def downgrade() -> None:
    op.drop_index("ix_jobs_state_since", "jobs")
    op.drop_index("ix_jobs_due", "jobs")
    op.drop_index("ix_jobs_deadline", "jobs")
    op.create_index("ix_jobs_queue", "jobs", ["state", "priority", "scheduled_at"])
    for column in reversed(_columns()):
        op.drop_column("jobs", column.name)
    op.drop_column("jobs", "state_since")
