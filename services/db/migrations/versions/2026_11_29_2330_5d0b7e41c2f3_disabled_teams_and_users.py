"""disabled teams and users.

Revision: 5d0b7e41c2f3
Follows: 9ce9df9ee75e
"""

import sqlalchemy as sa
from alembic import op

from xsam.services.db import base

revision = "5d0b7e41c2f3"
down_revision = "9ce9df9ee75e"
branch_labels = None
depends_on = None

_TABLES = ("teams", "users")
_COLUMNS = ("disabled_at", "deleted_at")


def upgrade() -> None:
    for table in _TABLES:
        for column in _COLUMNS:
            op.add_column(table, sa.Column(column, base.UtcDateTime(), nullable=True))


def downgrade() -> None:
    # Not in a batch: SQLite would make the tables anew, and what refers to them would go with the old ones.
    for table in _TABLES:
        for column in _COLUMNS:
            op.drop_column(table, column)
