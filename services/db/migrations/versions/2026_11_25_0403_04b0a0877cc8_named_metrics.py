"""Named metrics of own tasks; accuracies, which not every task has, may be missing.

Revision: 04b0a0877cc8
Follows: b3d81f6c2a47
"""

import sqlalchemy as sa
from alembic import op

revision = "04b0a0877cc8"
down_revision = "b3d81f6c2a47"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "named_metrics",
        sa.Column("job_id", sa.String(length=12), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_named_metrics_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "epoch", "name", name=op.f("pk_named_metrics")),
    )
    with op.batch_alter_table("epoch_metrics", schema=None) as batch_op:
        batch_op.alter_column("train_accuracy", existing_type=sa.DOUBLE(), nullable=True)
        batch_op.alter_column("eval_accuracy", existing_type=sa.DOUBLE(), nullable=True)


def downgrade() -> None:
    for name in ("train_accuracy", "eval_accuracy"):
        op.execute(sa.text(f"UPDATE epoch_metrics SET {name} = 0 WHERE {name} IS NULL"))  # noqa: S608 - our own names
    with op.batch_alter_table("epoch_metrics", schema=None) as batch_op:
        batch_op.alter_column("eval_accuracy", existing_type=sa.DOUBLE(), nullable=False)
        batch_op.alter_column("train_accuracy", existing_type=sa.DOUBLE(), nullable=False)

    op.drop_table("named_metrics")
