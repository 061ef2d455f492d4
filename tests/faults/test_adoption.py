"""An application is adopted step by step while it runs, each step undone and done again.

It is a listener (node and `pg`; and a plain psycopg one, so that the test always runs) and psycopg
publishers that know nothing of this project: `SELECT pg_notify`, and a table with a trigger of
their own that calls pg_notify. Its role owns nothing of ours. Asserted at the end, of all that was
committed:

- the old listener has heard all of it once, and of each sender in its order, whatever step was on;
- what was sent while a capture listened, in sessions with the compatibility schema, or by
  publish(), is in the outbox once, and nothing is there twice, the times of change included;
- the durable group has got all that is in the outbox, once, in each sender's order; but for the
  moment in which a sender turns from being captured to publishing;
- changes of the table while it was watched are published once.

The planted variants, each caught: a capture that does not know what notify() has published (twice);
publishers that are moved before the topic is mirrored (not heard).
DURABLE_NOTIFY_SECONDS makes it longer.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

import durable_notify as dn
from durable_notify._sync import capture as sync_capture
from durable_notify.bridge import Bridge
from tests.faults.application import (
    DDL,
    ORDERS,
    PRICES,
    PRODUCTS,
    TOPIC,
    Application,
    OldListener,
    application,
)
from tests.faults.chance import seconds
from tests.support.capture import capturing, messages
from tests.support.missing import node_with_pg
from tests.support.roles import Roles, roles
from tests.support.wait import eventually

Connection = psycopg.Connection[Any]
Windows = list[tuple[float, float]]

SECONDS = seconds(0)
PROGRAMS = Path(__file__).parents[1] / "programs"
PATH = sql.SQL('"$user", public, durable_notify_compat, pg_catalog')


class Adoption:
    """The steps, each with its undo; and when each was in force."""

    def __init__(self, conn: Connection, dsn: str, app: Application, role: str) -> None:
        self.conn = conn
        self.dsn = dsn
        self.app = app
        self.role = sql.Identifier(role)
        self.captured: Windows = []
        self.watched: Windows = []
        self.got: list[tuple[str, Any]] = []

    @contextlib.contextmanager
    def capture(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for channel, topic in ((ORDERS, TOPIC), (PRICES, PRICES)):
                running = stack.enter_context(capturing("sync", self.dsn, channel, topic))
                running.listens()
                stack.callback(running.stop)
            since = time.monotonic()
            yield
            self.captured.append((since, time.monotonic()))

    def _set_path(self, what: sql.Composable) -> None:
        name = sql.Identifier(self.conn.info.dbname)
        alter = sql.SQL("ALTER ROLE {} IN DATABASE {} {}").format(self.role, name, what)
        self.conn.execute(alter)
        self.app.reconnect()

    def compat(self) -> None:
        Bridge().create_compat(self.conn)
        self._set_path(sql.SQL("SET search_path = {}").format(PATH))

    def undo_compat(self) -> None:
        self._set_path(sql.SQL("RESET search_path"))
        Bridge().drop_compat(self.conn)

    def move(self) -> None:
        Bridge().mirror(self.conn, TOPIC, ORDERS)
        self.app.move(True)

    def undo_move(self) -> None:
        self.app.move(False)
        Bridge().unmirror(self.conn, TOPIC)

    def watch(self) -> None:
        for _ in range(20):  # it waits for writers for 3 seconds, and says so
            with contextlib.suppress(psycopg.errors.LockNotAvailable):
                Bridge().watch(self.conn, "product", PRODUCTS)
                break
        self._watched_since = time.monotonic()

    def undo_watch(self) -> None:
        self.watched.append((self._watched_since, time.monotonic()))
        for _ in range(20):
            with contextlib.suppress(psycopg.errors.LockNotAvailable):
                Bridge().unwatch(self.conn, "product", PRODUCTS)
                break

    @contextlib.contextmanager
    def workers(self, group: str) -> Iterator[None]:
        """A durable consumer, from the beginning."""
        options: dict[str, Any] = {"group": group, "topics": [TOPIC, PRICES], "poll_interval": None}
        consumer = dn.Consumer(self.dsn, **options)
        thread = threading.Thread(
            target=consumer.run,
            args=[lambda message: self.got.append((message.topic, message.payload))],
        )
        thread.start()
        try:
            yield
            query = "SELECT bool_and(unread + deferred + leased = 0) FROM durable_notify.status() WHERE group_name = %s"
            eventually(lambda: self.conn.execute(query, [group]).fetchone() == (True,), 60)
        finally:
            consumer.stop()
            thread.join()


def adopt(steps: Adoption) -> None:
    """All steps, each undone and done again."""
    app = steps.app
    app.work()
    with steps.capture():
        app.work()
    app.work()
    with steps.capture():
        app.work()
        steps.compat()  # what is published durably is heard by the capture, too
        app.work()
        steps.undo_compat()
        app.work()
        steps.compat()
    app.work()
    with steps.workers("tried"):
        app.work(5)
    dn.Admin().delete_group(steps.conn, "tried")
    steps.got.clear()
    with steps.workers("workers"):
        for undo in (True, False):
            steps.move()
            app.work()
            steps.watch()
            app.work()
            if undo:
                steps.undo_watch()
                app.work(5)
                steps.undo_move()
                app.work(5)
        more_until = time.monotonic() + SECONDS
        while time.monotonic() < more_until:
            steps.undo_watch()
            steps.undo_move()
            steps.undo_compat()
            with steps.capture():
                app.work()
                steps.compat()
            steps.move()
            steps.watch()
            app.work()
        app.stop()
        steps.watched.append((steps._watched_since, time.monotonic()))


def judge(steps: Adoption, old: OldListener, patience: float = 20.0) -> str:
    """Compare what was committed with what the outbox, the group and the old listener have."""
    sent = steps.app.sent
    with contextlib.suppress(AssertionError):  # what it lacks is seen below
        eventually(lambda: len(old.heard) >= len(sent), patience)
    for channel in (ORDERS, PRICES):
        for number in range(len(steps.app.senders)):
            mine = [one.text for one in sent if (one.sender, one.channel) == (number, channel)]
            heard = [
                text
                for name, text in old.heard
                if name == channel and text.startswith(f"{number} ")
            ]
            assert heard == mine, "the old listener hears something else than before"
    promised = 0
    for channel, topic in ((ORDERS, TOPIC), (PRICES, PRICES)):
        log = messages(steps.conn, topic)
        assert not [text for text, times in Counter(log).items() if times > 1], "published twice"
        there = set(log)
        assert there <= {one.text for one in sent if one.channel == channel}, "never committed"
        for one in sent:
            if one.channel == channel and (
                one.how == "durably"
                or any(since <= one.began and one.committed <= to for since, to in steps.captured)
            ):
                promised += 1
                assert one.text in there, f"{one} is lost"
        got = [text for name, text in steps.got if name == topic]
        assert Counter(got) == Counter(log), "the group got something else than the outbox has"
        # What a capture publishes comes a moment after it was sent: in order by itself.
        how = {one.text: one.how for one in sent}
        for number, kind in itertools.product(range(len(steps.app.senders)), ("plain", "durably")):
            mine = [text for text in got if text.startswith(f"{number} ") and how[text] == kind]
            assert mine == sorted(mine, key=lambda text: int(text.split()[1])), "out of order"
    changes = [payload["new"]["id"] for payload in messages(steps.conn, PRODUCTS)]
    assert len(changes) == len(set(changes))
    watched = [
        one.text
        for one in sent
        if one.channel == PRICES
        and any(since <= one.began and one.committed <= to for since, to in steps.watched)
    ]
    assert watched
    assert set(watched) <= set(changes)
    return f"{len(sent)} committed, {promised} promised, {len(watched)} changes watched"


@pytest.fixture
def old_command(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    if request.param == "psycopg":
        return [sys.executable, str(PROGRAMS / "old_listener.py")]
    node_with_pg(tmp_path)
    script = tmp_path / "old_listener.mjs"
    script.write_text((PROGRAMS / "old_listener.mjs").read_text())
    return ["node", str(script)]


@contextlib.contextmanager
def adopted(
    dsn: str, conn: Connection, command: list[str], cwd: Path
) -> Iterator[tuple[Adoption, OldListener]]:
    """The running application, its old listener beside it."""
    with roles(dsn, {"app": [("publish", [TOPIC, PRICES], None)]}) as made:
        conn.execute(DDL)
        conn.execute(sql.SQL("GRANT INSERT ON product TO {}").format(role_of(made)))
        old = OldListener(command, dsn, cwd)
        try:
            with application(made.login("app")) as app:
                yield Adoption(conn, dsn, app, made.names["app"]), old
        finally:
            old.close()


def role_of(made: Roles) -> sql.Identifier:
    return sql.Identifier(made.names["app"])


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 110)
@pytest.mark.parametrize("old_command", ["node", "psycopg"], indirect=True)
def test_adoption(dsn: str, conn: Connection, old_command: list[str], tmp_path: Path) -> None:
    with adopted(dsn, conn, old_command, tmp_path) as (steps, old):
        adopt(steps)
        print(judge(steps, old))
        # The bridge is removed.
        steps.undo_watch()
        Bridge().unmirror(conn, TOPIC)
        name = sql.Identifier(conn.info.dbname)
        conn.execute(
            sql.SQL("ALTER ROLE {} IN DATABASE {} RESET search_path").format(steps.role, name)
        )
        Bridge().drop_compat(conn)
        assert {bridge.kind for bridge in Bridge().bridges(conn)} == {"capture"}  # it has ended


@pytest.mark.parametrize("old_command", ["psycopg"], indirect=True)
def test_planted_a_capture_that_publishes_again(
    dsn: str,
    conn: Connection,
    old_command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with adopted(dsn, conn, old_command, tmp_path) as (steps, old):
        with monkeypatch.context() as planted:
            planted.setattr(sync_capture.Capture, "_new", lambda _, heard: heard)
            with steps.capture():
                steps.compat()
                steps.app.work(5)
        steps.app.stop()
        with pytest.raises(AssertionError, match="published twice"):
            judge(steps, old)


@pytest.mark.parametrize("old_command", ["psycopg"], indirect=True)
def test_planted_without_a_mirror(
    dsn: str, conn: Connection, old_command: list[str], tmp_path: Path
) -> None:
    with adopted(dsn, conn, old_command, tmp_path) as (steps, old):
        steps.app.work(5)
        steps.app.move(True)
        Bridge().mirror(conn, TOPIC, ORDERS)
        steps.app.work(5)
        steps.app.stop()
        last = steps.app.sent[-1].text
        eventually(lambda: any(text == last for _, text in old.heard))
        with pytest.raises(AssertionError, match="something else"):
            judge(steps, old, patience=0.0)
