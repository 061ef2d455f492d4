#!/usr/bin/env python3
"""Django: an order and its message are stored in one transaction; a consumer confirms the order.

pip install "durable-notify[django]"     # and django-tasks, before Django 6.0
export DURABLE_NOTIFY_DSN=postgresql://...
python manage.py migrate                 # durable_notify's schema, too
python manage.py test
python manage.py runserver
python manage.py durable_notify run --reload  # in another terminal: consumers and tasks
"""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
    execute_from_command_line(sys.argv)
