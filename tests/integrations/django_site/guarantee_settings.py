"""The example's settings, for the tests of what the application promises."""

from settings import *  # noqa: F403 - examples/django_shop
from settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "guarantees"]
TASKS = {
    "default": {
        "BACKEND": "durable_notify.integrations.django.tasks.TaskBackend",
        "QUEUES": [],
        "OPTIONS": {"consumer": {"concurrency": 2, "until_empty": True, "poll_interval": None}},
    },
    "immediate": {"BACKEND": "guarantees.sample_tasks.Immediate"},
}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # quick
