"""The application's configuration."""

from __future__ import annotations

from django.apps import AppConfig

__all__ = ["DurableNotifyConfig"]


class DurableNotifyConfig(AppConfig):
    """``durable_notify.integrations.django``, whose label is ``durable_notify``."""

    name = "durable_notify.integrations.django"
    label = "durable_notify"
    verbose_name = "Durable notify"
    default_auto_field = "django.db.models.BigAutoField"
