"""Lists of jobs in each order; where attempts ran, samples of the cluster, promises for readers.

Revision: f0ecfb11ad39
Follows: 3f04a95bea19
"""

import sqlalchemy as sa
from alembic import op

from xsam.services.db import base

revision = "f0ecfb11ad39"
down_revision = "3f04a95bea19"
branch_labels = None
depends_on = None

_OF_LISTS = sa.text("kind = 'training'")
_LISTS: dict[str, tuple[str, ...]] = {
    "created": (),
    "team": ("team",),
    "state": ("state",),
    "name": ("name",),
    "user": ("submitted_by",),
    "best": ("best_value",),
    "cost": ("grad_evals",),
}
_BEFORE: dict[str, tuple[str, ...]] = {
    "created": (),
    "name_created": ("name",),
    "state_created": ("state",),
    "team_created": ("team",),
}


def upgrade() -> None:
    for name in ("optimizer", "model", "dataset"):
        op.add_column("jobs", sa.Column(name, sa.String(length=64), nullable=True))
    op.add_column("jobs", sa.Column("best_value", sa.Double(), nullable=True))
    op.add_column("jobs", sa.Column("grad_evals", base.BigId, nullable=True))
    _fill()
    for name in _BEFORE:
        op.drop_index(f"ix_jobs_{name}", "jobs")
    for name, columns in _LISTS.items():
        all_columns = [*columns, "created_at", "id"]
        op.create_index(f"ix_jobs_list_{name}", "jobs", all_columns, sqlite_where=_OF_LISTS, postgresql_where=_OF_LISTS)
    op.add_column("job_attempts", sa.Column("placement", base.JsonColumn, nullable=True))
    op.create_index("ix_job_attempts_finished", "job_attempts", ["finished_at"])
    op.add_column("queue_views", sa.Column("promises", base.JsonColumn, nullable=True))
    op.create_table(
        "cluster_samples",
        sa.Column("span_s", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", base.UtcDateTime(), nullable=False),
        sa.Column("num_nodes", sa.Double(), nullable=False),
        sa.Column("num_gpus", sa.Double(), nullable=False),
        sa.Column("num_cpus", sa.Double(), nullable=False),
        sa.Column("used_gpus", sa.Double(), nullable=False),
        sa.Column("used_cpus", sa.Double(), nullable=False),
        sa.Column("num_running", sa.Double(), nullable=False),
        sa.Column("num_queued", sa.Double(), nullable=False),
        sa.Column("teams", base.JsonColumn, nullable=False),
        sa.PrimaryKeyConstraint("span_s", "at", name=op.f("pk_cluster_samples")),
    )


def downgrade() -> None:
    op.drop_table("cluster_samples")
    op.drop_column("queue_views", "promises")
    op.drop_index("ix_job_attempts_finished", "job_attempts")
    op.drop_column("job_attempts", "placement")
    for name in _LISTS:
        op.drop_index(f"ix_jobs_list_{name}", "jobs")
    for name, columns in _BEFORE.items():
        op.create_index(f"ix_jobs_{name}", "jobs", [*columns, "created_at", "id"])
    for name in ("grad_evals", "best_value", "dataset", "model", "optimizer"):
        op.drop_column("jobs", name)


def _fill() -> None:
    """Take the new columns of jobs that exist out of their specifications and summaries."""
    jobs = sa.table(
        "jobs",
        *(sa.column(name) for name in ("kind", "optimizer", "model", "dataset", "best_value", "grad_evals")),
        sa.column("spec", base.JsonColumn),
        sa.column("summary", base.JsonColumn),
    )
    named = {"optimizer": "variant", "model": "name", "dataset": "name"}
    values = {part: jobs.c.spec[(part, key)].as_string() for part, key in named.items()}
    op.execute(jobs.update().where(jobs.c.kind != "study").values(**values))
    best = sa.func.coalesce(jobs.c.summary["best_value"].as_float(), jobs.c.summary["best_accuracy"].as_float())
    cost = jobs.c.summary["grad_evals"].as_integer()
    op.execute(jobs.update().where(jobs.c.summary.is_not(None)).values(best_value=best, grad_evals=cost))
