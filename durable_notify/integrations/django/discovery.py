"""The consumers of all installed applications."""

from __future__ import annotations

import sys
from typing import Any

from django.apps import apps
from django.utils.module_loading import autodiscover_modules

from durable_notify._sync.consumer import consumer as plain
from durable_notify.errors import InvalidArgument

from .tasks import task_consumers

__all__ = ["every_consumer"]

#: The module of an application that defines its consumers.
MODULE = "consumers"


def every_consumer() -> list[plain.Consumer[Any]]:
    """Return the consumers of all installed applications, and those of backends of tasks.

    Raises:
        InvalidArgument: there is none.
    """
    autodiscover_modules(MODULE)
    found: list[plain.Consumer[Any]] = []
    for app in apps.get_app_configs():
        module = sys.modules.get(f"{app.name}.{MODULE}")
        for value in vars(module).values() if module else ():
            if isinstance(value, plain.Consumer) and value not in found:
                found.append(value)
    found += task_consumers()
    if not found:
        raise InvalidArgument(
            f"no installed application has consumers: define one in its module {MODULE}, or name "
            "one, MODULE:CONSUMER"
        )
    return found
