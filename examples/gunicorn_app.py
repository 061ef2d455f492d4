"""gunicorn: each worker has a consumer, which starts after the fork and ends with the worker.

pip install durable-notify flask gunicorn
durable-notify migrate
export DURABLE_NOTIFY_DSN=postgresql://...
gunicorn --chdir examples --config gunicorn_app.py gunicorn_app:app
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

import psycopg
from flask import Flask, request

import durable_notify as dn

# gunicorn's settings
preload_app = True  # the application is loaded once, before the workers are forked
workers = 2
bind = "127.0.0.1:8000"

DSN = os.environ["DURABLE_NOTIFY_DSN"]
app = Flask(__name__)
publisher = dn.Publisher()
# It has no connections and no threads before it starts: so it may be made before the fork.
consumer = dn.Consumer(DSN, group="confirmations", concurrency=2)
running = ExitStack()


def post_fork(_server: Any, _worker: Any) -> None:
    """Start the worker's consumer, with connections and a listener of its own."""
    running.enter_context(consumer.running())


def worker_exit(_server: Any, _worker: Any) -> None:
    """Let running handlers finish."""
    running.close()


@app.post("/orders")
def place_order() -> dict[str, int]:
    with psycopg.connect(DSN) as connection:
        return {"message": publisher.publish(connection, "orders", request.get_json())}


@consumer.on("orders", transaction=True)
def confirm(message: dn.Message, connection: psycopg.Connection) -> None:
    query = "INSERT INTO confirmation (message_id, worker) VALUES (%s, %s)"
    connection.execute(query, [message.id, os.getpid()])
