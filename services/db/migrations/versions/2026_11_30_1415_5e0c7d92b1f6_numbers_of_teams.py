"""the number by which nodes know a team.

Revision: 5e0c7d92b1f6
Follows: b7e04d9a53c1
"""

import sqlalchemy as sa
from alembic import op

revision = "5e0c7d92b1f6"
down_revision = "b7e04d9a53c1"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("teams", sa.Column("number", sa.Integer(), nullable=True))
    op.create_index("ix_teams_number", "teams", ["number"], unique=True)


def downgrade() -> None:
    # Not in a batch: SQLite would make the table anew, and what belongs to its rows would go with the old one.
    op.drop_index("ix_teams_number", table_name="teams")
    op.drop_column("teams", "number")
