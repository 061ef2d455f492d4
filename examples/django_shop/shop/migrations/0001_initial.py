"""The table of orders."""

from django.db import migrations, models


def _id() -> models.BigAutoField:
    return models.BigAutoField(
        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
    )


class Migration(migrations.Migration):
    initial = True
    dependencies = ()
    operations = (
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", _id()),
                ("item", models.CharField(max_length=100)),
                ("confirmed", models.BooleanField(default=False)),
                ("receipts", models.IntegerField(default=0)),
            ],
        ),
    )
