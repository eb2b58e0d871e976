"""Bundles: which team has uploaded which code.

Revision: 2f0f683508c9
Follows: 04b0a0877cc8
"""

import sqlalchemy as sa
from alembic import op

from xsam.services.db import base

revision = "2f0f683508c9"
down_revision = "04b0a0877cc8"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "bundles",
        sa.Column("team", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("packed_bytes", sa.Integer(), nullable=False),
        sa.Column("unpacked_bytes", sa.Integer(), nullable=False),
        sa.Column("num_files", sa.Integer(), nullable=False),
        sa.Column("commit", sa.String(), nullable=True),
        sa.Column("is_dirty", sa.Boolean(), nullable=False),
        sa.Column("made_by", sa.String(), nullable=False),
        sa.Column("created_at", base.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("team", "id", name=op.f("pk_bundles")),
    )


def downgrade() -> None:
    op.drop_table("bundles")
