"""${message}"""

from alembic import op

from durable_notify.schema import run_folder

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run ``sql/${up_revision}``."""
    run_folder(op, revision)


def downgrade() -> None:
    """Run ``sql/${up_revision}/down``."""
    run_folder(op, f"{revision}/down")
