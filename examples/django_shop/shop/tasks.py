"""Work for later."""

from django.db.models import F

from .models import Order

try:
    from django.tasks import task
except ImportError:  # before Django 6.0
    from django_tasks import task


@task
def send_receipt(order_id: int) -> None:
    """Send a receipt."""
    Order.objects.filter(pk=order_id).update(receipts=F("receipts") + 1)
