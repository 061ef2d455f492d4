"""Django: an application for ``INSTALLED_APPS``. See ``docs/django.md``.

Publish through ``django.db.connection``: it needs nothing of this package but the schema.
"""

from .consumer import Consumer, dsn

__all__ = ["Consumer", "dsn"]
