"""What customers do."""

from django.db import connection, transaction
from django.http import HttpRequest, JsonResponse

import durable_notify as dn

from .models import Order

publisher = dn.Publisher()


def place_order(_request: HttpRequest, item: str) -> JsonResponse:
    """Store an order and publish about it: both, or neither."""
    with transaction.atomic():
        order = Order.objects.create(item=item)
        publisher.publish(connection, "orders", {"order": order.pk}, key=str(order.pk))
    return JsonResponse({"order": order.pk}, status=201)
