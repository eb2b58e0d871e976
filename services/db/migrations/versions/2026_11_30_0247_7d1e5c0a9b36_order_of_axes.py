"""order of axes.

Revision: 7d1e5c0a9b36
Follows: 6b1f0a3c9d52
"""

from alembic import op

revision = "7d1e5c0a9b36"
down_revision = "6b1f0a3c9d52"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _change("json")


def downgrade() -> None:
    _change("jsonb")


def _change(kind: str) -> None:
    if op.get_bind().dialect.name == "postgresql":  # SQLite keeps the text as it was written
        op.execute(f"ALTER TABLE studies ALTER COLUMN space TYPE {kind} USING space::{kind}")
