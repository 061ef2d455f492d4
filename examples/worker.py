"""A worker on plain psycopg: each message's effect happens exactly once.

It keeps the balance of each account. It writes the balance and the acknowledgement in one
transaction, so that no crash can lose a payment or count it twice.

    pip install psycopg-pool
    DURABLE_NOTIFY_DSN=postgresql://... python examples/worker.py [--until-empty]

Kill it as hard as you like, and start it again.
"""

from __future__ import annotations

import logging
import os
import sys

import psycopg
from psycopg_pool import ConnectionPool

import durable_notify as dn

DSN = os.environ["DURABLE_NOTIFY_DSN"]
log = logging.getLogger("accounts")

TABLE = """
    CREATE TABLE IF NOT EXISTS account (name text PRIMARY KEY, balance numeric NOT NULL)
"""
PAY_IN = """
    INSERT INTO account VALUES (%(account)s, %(amount)s)
    ON CONFLICT (name) DO UPDATE SET balance = account.balance + EXCLUDED.balance
"""


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with psycopg.connect(DSN) as connection:
        connection.execute(TABLE)
    # A pool of its own, as large as `concurrency`: handlers run in that many threads.
    with ConnectionPool(DSN, min_size=4, max_size=4, open=True) as pool:

        def pay_in(message: dn.Message) -> None:
            payment = message.payload
            if not isinstance(payment, dict) or not {"account", "amount"} <= payment.keys():
                message.reject("not a payment")  # no retry would help
                return
            with pool.connection() as connection:  # commits at the end, or rolls back
                connection.execute(PAY_IN, payment)
                message.ack(connection)
            log.info("%s +%s", payment["account"], payment["amount"])

        # Ends on SIGTERM and Ctrl-C, once running handlers are done.
        dn.Consumer(
            DSN, group="accounts", topics=["payments"], until_empty="--until-empty" in sys.argv
        ).run(pay_in, concurrency=4)


if __name__ == "__main__":
    main()
