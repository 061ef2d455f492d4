"""An application that knows nothing of this project, to be adopted while it runs."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg

import durable_notify as dn
from tests.support.wait import eventually

ORDERS = 'Orders "changed"'  # the publisher's channel
PRICES = "price_changed"  # the trigger's
TOPIC = 'Orders%20"changed"'  # of the publisher's channel
PRODUCTS = "products"  # of the watched table

DDL = f"""
    CREATE TABLE product (id text PRIMARY KEY, price numeric NOT NULL);
    CREATE FUNCTION price_changed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('{PRICES}', NEW.id);
        RETURN NULL;
    END $$;
    CREATE TRIGGER price_changed AFTER INSERT OR UPDATE ON product
        FOR EACH ROW EXECUTE FUNCTION price_changed();
"""


@dataclass
class Sent:
    """What one transaction has sent, and when: it committed somewhere between the two."""

    sender: int
    channel: str
    text: str
    how: str  # plain; durably: with the compatibility schema, or by publish()
    began: float
    committed: float


class Sender:
    """Sends with `SELECT pg_notify(...)`, and by writing to a table with a trigger."""

    def __init__(self, dsn: str, number: int) -> None:
        self._dsn = dsn
        self._number = number
        self._random = random.Random(number)
        self.sent: list[Sent] = []
        self.sessions = 0
        self.moved = False  # to publish()
        self._n = 0
        self._done = threading.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._done.is_set():
                with psycopg.connect(self._dsn) as connection:
                    self.sessions += 1
                    row = connection.execute("SHOW search_path").fetchone()
                    assert row is not None
                    connection.commit()
                    compat = "durable_notify_compat" in row[0]
                    for _ in range(10):
                        self._send(connection, compat)
        except BaseException as error:
            self.error = error

    def _send(self, connection: psycopg.Connection[Any], compat: bool) -> None:
        self._n += 1
        text = f"{self._number} {self._n}"
        how = "durably" if compat else "plain"
        began = time.monotonic()
        if self._random.random() < 0.3:
            channel = PRICES
            connection.execute("INSERT INTO product VALUES (%s, 1)", [text])
        else:
            channel = ORDERS
            if self.moved:
                how = "durably"
                dn.Publisher().publish(connection, TOPIC, text)
            else:
                connection.execute("SELECT pg_notify(%s, %s)", [channel, text])
        if self._random.random() < 0.1:
            connection.rollback()
            return
        connection.commit()
        self.sent.append(Sent(self._number, channel, text, how, began, time.monotonic()))
        time.sleep(0.002)

    def stop(self) -> None:
        self._done.set()
        self._thread.join()


class Application:
    """Some senders and an old listener."""

    def __init__(self, app_dsn: str, senders: int = 3) -> None:
        self.senders = [Sender(app_dsn, number) for number in range(senders)]

    @property
    def sent(self) -> list[Sent]:
        return [one for sender in self.senders for one in list(sender.sent)]

    def _each(self, attribute: str, more: int) -> None:
        """Wait until each sender has so many more of something."""

        def count(sender: Sender) -> int:
            assert sender.error is None, sender.error
            value = getattr(sender, attribute)
            return value if isinstance(value, int) else len(value)

        before = [count(sender) for sender in self.senders]
        eventually(
            lambda: all(
                count(sender) >= old + more
                for sender, old in zip(self.senders, before, strict=True)
            )
        )

    def work(self, transactions: int = 15) -> None:
        self._each("sent", transactions)

    def reconnect(self) -> None:
        """Wait until none of the sessions of now is there any more."""
        self._each("sessions", 2)

    def move(self, moved: bool) -> None:
        """Have the publishers publish(), one after the other, or do as before."""
        for sender in self.senders:
            sender.moved = moved
            self.work(3)

    def stop(self) -> None:
        for sender in self.senders:
            sender.stop()
        for sender in self.senders:
            assert sender.error is None, sender.error


@contextlib.contextmanager
def application(app_dsn: str) -> Iterator[Application]:
    made = Application(app_dsn)
    try:
        yield made
    finally:
        for sender in made.senders:
            sender.stop()


class OldListener:
    """A process that listens, and what it has printed."""

    def __init__(self, command: list[str], dsn: str, cwd: Any) -> None:
        self.heard: list[tuple[str, str]] = []
        self._ready = threading.Event()
        self._process = subprocess.Popen(
            [*command, ORDERS, PRICES],
            cwd=cwd, env=os.environ | {"DATABASE_URL": dsn}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self._ready.wait(30)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                said = json.loads(line)
                if said == "listening":
                    self._ready.set()
                else:
                    self.heard.append((said[0], said[1]))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
