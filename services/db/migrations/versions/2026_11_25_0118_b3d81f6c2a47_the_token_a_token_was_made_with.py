"""the token a token was made with.

Revision: b3d81f6c2a47
Follows: 0cee7c6a8947
"""

import sqlalchemy as sa
from alembic import op

revision = "b3d81f6c2a47"
down_revision = "0cee7c6a8947"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("tokens", schema=None) as batch_op:
        batch_op.add_column(sa.Column("parent_id", sa.String(length=12), nullable=True))
        batch_op.create_index("ix_tokens_parent", ["parent_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("tokens", schema=None) as batch_op:
        batch_op.drop_index("ix_tokens_parent")
        batch_op.drop_column("parent_id")
