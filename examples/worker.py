"""A worker in threads: each message's effect happens exactly once.

It keeps the balance of each account. The handler's connection commits the balance and the
acknowledgement together, so that no crash can lose a payment or count it twice.

    pip install "durable-notify[pydantic]"
    DURABLE_NOTIFY_DSN=postgresql://... python examples/worker.py [--until-empty]

Kill it as hard as you like, and start it again.
"""

from __future__ import annotations

import logging
import os
import sys
from decimal import Decimal

import psycopg
from pydantic import BaseModel

import durable_notify as dn

DSN = os.environ["DURABLE_NOTIFY_DSN"]
log = logging.getLogger("accounts")

TABLE = """
    CREATE TABLE IF NOT EXISTS account (name text PRIMARY KEY, balance numeric NOT NULL)
"""
PAY_IN = """
    INSERT INTO account VALUES (%s, %s)
    ON CONFLICT (name) DO UPDATE SET balance = account.balance + EXCLUDED.balance
"""


class Payment(BaseModel):
    account: str
    amount: Decimal


# A payload that is no Payment becomes a dead letter: no retry would help.
payments = dn.Topic("payments", Payment)
consumer = dn.Consumer(
    DSN, group="accounts", concurrency=4, until_empty="--until-empty" in sys.argv
)


@consumer.on(payments, transaction=True)
def pay_in(message: dn.Message[Payment], connection: psycopg.Connection) -> None:
    payment = message.payload
    connection.execute(PAY_IN, (payment.account, payment.amount))
    log.info("%s +%s", payment.account, payment.amount)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with psycopg.connect(DSN) as connection:
        connection.execute(TABLE)
    consumer.run()  # ends on SIGTERM and Ctrl-C, once running handlers are done


if __name__ == "__main__":
    main()
