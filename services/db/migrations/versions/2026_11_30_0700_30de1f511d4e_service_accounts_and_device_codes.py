"""service accounts, and programs that wait for a person to confirm them.

Revision: 30de1f511d4e
Follows: c4a9e17f3d20
"""

import sqlalchemy as sa
from alembic import op

from xsam.services.db import base

revision = "30de1f511d4e"
down_revision = "c4a9e17f3d20"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # With a default of the database's: an old process goes on to write users without it.
    op.add_column("users", sa.Column("is_service", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_table(
        "device_codes",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("user_code_digest", sa.String(length=64), nullable=False),
        sa.Column("label", sa.String(length=100), nullable=True),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("created_at", base.UtcDateTime(), nullable=False),
        sa.Column("expires_at", base.UtcDateTime(), nullable=False),
        sa.Column("interval_s", sa.Double(), nullable=False),
        sa.Column("asked_at", base.UtcDateTime(), nullable=True),
        sa.Column("decided_at", base.UtcDateTime(), nullable=True),
        sa.Column("approved_by", sa.String(length=12), nullable=True),
        sa.Column("used_at", base.UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["approved_by"], ["tokens.id"], name=op.f("fk_device_codes_approved_by_tokens")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_device_codes")),
        sa.UniqueConstraint("digest", name=op.f("uq_device_codes_digest")),
        sa.UniqueConstraint("user_code_digest", name=op.f("uq_device_codes_user_code_digest")),
    )
    op.create_index("ix_device_codes_expires", "device_codes", ["expires_at"])


def downgrade() -> None:
    op.drop_table("device_codes")
    op.drop_column("users", "is_service")
