"""The shop's tests."""

from django.test import TestCase, TransactionTestCase

from durable_notify.integrations.django.discovery import every_consumer
from durable_notify.integrations.django.test import MessagesMixin

from .consumers import confirmations
from .models import Order


class Publishing(MessagesMixin, TestCase):
    """Nothing is committed here."""

    def test_an_order_is_published(self) -> None:
        self.client.post("/orders/tea")
        order = Order.objects.get()
        self.assertPublished("orders", payload={"order": order.pk}, key=str(order.pk), count=1)

    def test_an_order_is_confirmed(self) -> None:
        self.client.post("/orders/tea")
        self.drain(confirmations)
        assert Order.objects.get().confirmed
        self.assertPublished("django.tasks.default")


class Handling(MessagesMixin, TransactionTestCase):
    """Here is: so consumers see it."""

    def test_an_order_has_one_receipt(self) -> None:
        self.client.post("/orders/tea")
        for consumer in every_consumer():
            self.drain(consumer)
        assert Order.objects.get().receipts == 1
