"""What the admin pages are about. The rows come from ``Admin``; the tables are not Django's."""

from __future__ import annotations

from typing import Any

from django.db import models

__all__ = ["DeadLetter", "Group"]


class _NoRows(models.Manager[Any]):
    """Trap: ``dumpdata`` reads the table of every model, also of one that is not managed."""

    def get_queryset(self) -> models.QuerySet[Any]:
        return super().get_queryset().none()


class DeadLetter(models.Model):  # noqa: DJ008 - it has no rows
    """Stands for dead letters in the admin's index and permissions."""

    objects = _NoRows()

    class Meta:
        managed = False
        default_permissions = ("view",)
        permissions = (
            ("redrive_deadletter", "Can redrive dead letters"),
            ("discard_deadletter", "Can discard dead letters"),
        )
        base_manager_name = "objects"


class Group(models.Model):  # noqa: DJ008
    """Stands for groups."""

    objects = _NoRows()

    class Meta:
        managed = False
        default_permissions = ("view",)
        permissions = (("pause_group", "Can pause and resume groups"),)
        base_manager_name = "objects"
