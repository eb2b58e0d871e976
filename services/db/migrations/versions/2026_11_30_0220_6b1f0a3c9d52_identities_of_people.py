"""Identities of people at a sign-on provider.

Revision: 6b1f0a3c9d52
Follows: 262fe1c14b8f
"""

import sqlalchemy as sa
from alembic import op

from xsam.services.db import base

revision = "6b1f0a3c9d52"
down_revision = "262fe1c14b8f"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "identities",
        sa.Column("issuer", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("user_name", sa.String(length=63), nullable=False),
        sa.Column("created_at", base.UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["user_name"], ["users.name"], name=op.f("fk_identities_user_name_users")),
        sa.PrimaryKeyConstraint("issuer", "subject", name=op.f("pk_identities")),
        sa.UniqueConstraint("user_name", name=op.f("uq_identities_user_name")),
    )


def downgrade() -> None:
    op.drop_table("identities")
