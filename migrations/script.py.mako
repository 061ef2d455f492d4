"""${message}"""

from alembic import op

from durable_notify.schema import run_file

revision = "${up_revision}"
down_revision = ${f'"{down_revision}"' if down_revision else None}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run what was generated."""
    run_file(op, "revisions/${name}.sql")


def downgrade() -> None:
    """Take it back."""
    run_file(op, "revisions/${name}.down.sql")
