"""Initial"""

from alembic import op

from durable_notify.schema import run_file

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create everything."""
    run_file(op, "schema/install.sql")


def downgrade() -> None:
    """Remove everything."""
    run_file(op, "schema/remove.sql")
