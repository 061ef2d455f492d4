"""Initial"""

from alembic import op

from durable_notify.schema import run_file

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run what was generated."""
    run_file(op, "revisions/0001_initial.sql")


def downgrade() -> None:
    """Take it back."""
    run_file(op, "revisions/0001_initial.down.sql")
