"""Flask on psycopg2: an order and its message are stored in one transaction.

The consumer is a process of its own. It confirms an order and acknowledges its message in one
transaction too, on a connection of the same pool.

    pip install "durable-notify[psycopg2,pydantic]" flask
    durable-notify migrate
    export DURABLE_NOTIFY_DSN=postgresql://...
    flask --app examples/flask_app.py create-table
    flask --app examples/flask_app.py run
    flask --app examples/flask_app.py confirm-orders  # in another terminal
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from flask import Flask, request
from psycopg2.pool import ThreadedConnectionPool
from pydantic import BaseModel

import durable_notify as dn

DSN = os.environ["DURABLE_NOTIFY_DSN"]
app = Flask(__name__)
pool = ThreadedConnectionPool(0, 8, DSN)
publisher = dn.Publisher()


class OrderPlaced(BaseModel):
    order_id: int


orders = dn.Topic("orders", OrderPlaced)

TABLE = """
    CREATE TABLE IF NOT EXISTS customer_order (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        item text NOT NULL,
        confirmed boolean NOT NULL DEFAULT false
    )
"""


@contextmanager
def transaction() -> Iterator[Any]:
    connection = pool.getconn()
    try:
        with connection:  # commits at the end, or rolls back
            yield connection
    finally:
        pool.putconn(connection)


@app.post("/orders")
def place_order() -> tuple[dict[str, int], int]:
    item = request.get_json()["item"]
    with transaction() as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO customer_order (item) VALUES (%s) RETURNING id", [item])
        (order_id,) = cursor.fetchone()
        publisher.publish(connection, orders, OrderPlaced(order_id=order_id))
    return {"id": order_id}, 201


@app.get("/orders/<int:order_id>")
def show_order(order_id: int) -> dict[str, str | bool] | tuple[str, int]:
    with transaction() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT item, confirmed FROM customer_order WHERE id = %s", [order_id])
        row = cursor.fetchone()
    return {"item": row[0], "confirmed": row[1]} if row else ("no such order", 404)


def confirm(message: dn.Message[OrderPlaced], connection: Any) -> None:
    """Handle a message: its writes and the acknowledgement commit together."""
    order_id = message.payload.order_id
    with connection.cursor() as cursor:
        cursor.execute("UPDATE customer_order SET confirmed = true WHERE id = %s", [order_id])


@app.cli.command("create-table")
def create_table() -> None:
    """Create the table of orders."""
    with transaction() as connection, connection.cursor() as cursor:
        cursor.execute(TABLE)


@app.cli.command("confirm-orders")
@click.option("--until-empty", is_flag=True, help="End when no order is left.")
def confirm_orders(until_empty: bool) -> None:
    """Confirm orders, until SIGTERM or Ctrl-C."""
    consumer = dn.Consumer(DSN, group="confirmations", concurrency=4, until_empty=until_empty)
    consumer.on(orders, transaction=pool)(confirm)
    consumer.run()
