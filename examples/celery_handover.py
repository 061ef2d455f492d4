"""Celery: messages are handed over as tasks, whose ids are those of the messages.

The order and its message commit together. So no task is lost between the commit and Celery's
broker, and none runs for an order that was rolled back.

    pip install durable-notify celery
    durable-notify migrate
    export DURABLE_NOTIFY_DSN=postgresql://... CELERY_BROKER=amqp://...
    celery --workdir examples --app celery_handover worker
    durable-notify run celery_handover:handover  # in this folder, in another terminal
"""

from __future__ import annotations

import os
from typing import Any

import psycopg
from celery import Celery

import durable_notify as dn

DSN = os.environ["DURABLE_NOTIFY_DSN"]
app = Celery("shop", broker=os.environ.get("CELERY_BROKER", "memory://"))
# Trap: without it, Celery forgets a task that RabbitMQ has not stored yet.
app.conf.broker_transport_options = {"confirm_publish": True}
app.conf.task_acks_late = True  # or Celery loses the tasks of a worker that dies

handover = dn.Consumer(DSN, group="to-celery")


@handover.on("orders")
def hand_over(message: dn.Message) -> None:
    """Send a task; the message is acknowledged when this returns."""
    ship.apply_async(args=[message.payload], task_id=str(message.id))


@app.task(bind=True, name="shop.ship")
def ship(self: Any, order: dict[str, Any]) -> None:
    """Ship an order once, although the task may be sent and run twice."""
    with psycopg.connect(DSN) as connection:
        connection.execute(
            "INSERT INTO shipment (message_id, item) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            [int(self.request.id), order["item"]],
        )
