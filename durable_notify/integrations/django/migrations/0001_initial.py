"""The schema durable_notify at its revision 0001, and the models of the admin pages."""

from typing import Any

from django.db import migrations, models

from durable_notify import schema
from durable_notify.integrations.django import dsn

REVISION = "0001"


def upgrade(_: Any, editor: Any) -> None:
    """Migrate the schema, unless it is as new already."""
    if editor.connection.vendor == "postgresql":
        schema.migrate(dsn(editor.connection.alias), REVISION)


def downgrade(_: Any, editor: Any) -> None:
    """Remove the schema, messages included."""
    if editor.connection.vendor == "postgresql":
        schema.downgrade(dsn(editor.connection.alias), "base")


def _id() -> Any:
    return models.BigAutoField(
        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
    )


class Migration(migrations.Migration):
    """Runs on a connection of its own, in one transaction."""

    atomic = False
    initial = True
    dependencies = ()
    operations = (
        migrations.RunPython(upgrade, downgrade),
        migrations.CreateModel(
            name="DeadLetter",
            fields=[("id", _id())],
            options={
                "managed": False,
                "default_permissions": ("view",),
                "permissions": (
                    ("redrive_deadletter", "Can redrive dead letters"),
                    ("discard_deadletter", "Can discard dead letters"),
                ),
                "base_manager_name": "objects",
            },
        ),
        migrations.CreateModel(
            name="Group",
            fields=[("id", _id())],
            options={
                "managed": False,
                "default_permissions": ("view",),
                "permissions": (("pause_group", "Can pause and resume groups"),),
                "base_manager_name": "objects",
            },
        ),
    )
