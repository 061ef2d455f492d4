"""Everything there is at first: the log, the groups, and the functions on them."""

from alembic import op

from durable_notify.schema import run_folder

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run ``sql/0001``."""
    run_folder(op, revision)


def downgrade() -> None:
    """Run ``sql/0001/down``."""
    run_folder(op, f"{revision}/down")
