"""What happens to orders; `manage.py durable_notify run` finds these consumers."""

from typing import Any

from django.db import connection

import durable_notify as dn
from durable_notify.integrations.django import Consumer

from .models import Order
from .tasks import send_receipt

confirmations = Consumer(group="confirmations", concurrency=4)


@confirmations.on("orders", transaction=connection)
def confirm(message: dn.Message, _connection: Any) -> None:
    """Confirm an order: its change, the task and the acknowledgement commit together."""
    order_id = message.payload["order"]
    Order.objects.filter(pk=order_id).update(confirmed=True)
    send_receipt.enqueue(order_id)
