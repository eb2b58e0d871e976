"""webhooks and what waits to be sent to them.

Revision: 373ec948a1aa
Follows: a1cf12387a02
"""

import sqlalchemy as sa
from alembic import op

from xsam.services.db import base

revision = "373ec948a1aa"
down_revision = "a1cf12387a02"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("team", sa.String(length=63), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("kinds", base.JsonColumn, nullable=False),
        sa.Column("secret", sa.String(length=100), nullable=False),
        sa.Column("made_by", sa.String(length=63), nullable=False),
        sa.Column("created_at", base.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_index("ix_webhooks_team", "webhooks", ["team", "created_at"])
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("webhook_id", sa.String(length=12), nullable=False),
        sa.Column("payload", base.JsonColumn, nullable=False),
        sa.Column("created_at", base.UtcDateTime(), nullable=False),
        sa.Column("next_at", base.UtcDateTime(), nullable=True),
        sa.Column("num_tries", sa.Integer(), nullable=False),
        sa.Column("delivered_at", base.UtcDateTime(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name=op.f("fk_webhook_deliveries_webhook_id_webhooks"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
    )
    op.create_index("ix_webhook_deliveries_due", "webhook_deliveries", ["next_at"])
    op.create_index("ix_webhook_deliveries_webhook", "webhook_deliveries", ["webhook_id", "created_at"])


def downgrade() -> None:
    op.drop_table("webhook_deliveries")
    op.drop_table("webhooks")
