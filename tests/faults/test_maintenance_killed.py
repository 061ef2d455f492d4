"""A round of maintenance is stopped at every one of its statements, and two are at it at once.

Asserted each time: no message that a group has not settled is gone, unless its loss is recorded; and
in the end, not stopped, a round does all that was left.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest

from tests.support.injection import How, instrument, plant, stop_at
from tests.support.retention import age, maintain, outbox_ids, retain, unsettled
from tests.support.sessions import Session, Sessions

EACH = 3


@pytest.fixture
def sessions(dsn: str) -> Iterator[Sessions]:
    with Sessions(dsn) as made:
        yield made


class World:
    """Topics of each kind, and a group that keeps up with some, and lags in one."""

    def __init__(self, session: Session) -> None:
        self.session = session
        session.subscribe("g", "settled state")
        session.subscribe("lags", "aged")
        retain(session, "settled", when_settled=True)
        retain(session, "state", compact=True, alarm_bytes=10**9)
        retain(session, "aged", max_age="1 hour", on_lag="lose")
        self.aged = 0
        self.newest: dict[str, int] = {}

    def more(self) -> None:
        """Something to be done for every step."""
        one = self.session
        for number in range(EACH):
            one.publish(number, "settled")
            key = "ab"[number % 2]
            self.newest[key] = one.publish(number, "state", key)
            age(one, one.publish(number, "aged"), "aged")
            self.aged += 1
        one.run(
            "SELECT durable_notify.publish('kept', '1', dedup_key => random()::text, dedup_window => '1 microsecond')"
        )
        one.run(
            "INSERT INTO durable_notify.lease_deadline VALUES (1, now()) ON CONFLICT DO NOTHING"
        )
        while batch := one.claim(100, "g", "settled state"):
            one.ack([m for m in batch if m.topic == "state" or m.payload != EACH - 1])
            for token in {m.token for m in batch}:
                one.run("SELECT durable_notify.release(ARRAY[%s]::bigint[])", token)
            if all(m.topic == "settled" and m.payload == EACH - 1 for m in batch):
                break

    def check(self) -> None:
        """What must hold whenever it is looked at."""
        one = self.session
        assert unsettled(one, "settled").get("g", []) == one.column(
            "SELECT id FROM durable_notify.outbox WHERE topic = 'settled' AND payload = %s ORDER BY id",
            str(EACH - 1),
        )
        assert set(self.newest.values()) <= set(outbox_ids(one, "state"))
        waiting = len(unsettled(one, "aged").get("lags", []))
        lost = one.value(
            "SELECT COALESCE(sum(messages), 0)::int FROM durable_notify.lost_messages()"
        )
        assert waiting + lost == self.aged


@pytest.mark.slow
@pytest.mark.parametrize("how", ["terminate", "cancel"])
def test_stopped_at_every_statement(sessions: Sessions, dsn: str, how: How) -> None:
    one = sessions.session()
    world = World(one)
    assert instrument(one) > 100
    stopped = 0
    for number in range(1, 2000):
        if number % 8 == 1:
            world.more()
        victim = Session(dsn)
        try:
            stop_at(victim, number * 3 - 2 if how == "cancel" else number * 2 - 1, how)
            victim.run("CALL durable_notify.maintain()")
            break
        except (psycopg.errors.AdminShutdown, psycopg.errors.QueryCanceled):
            stopped += 1
        finally:
            victim.close()
        world.check()
        one.run("UPDATE durable_notify.maintenance SET beat_at = NULL")  # it would be waited for
    assert stopped > 20
    one.run("UPDATE durable_notify.maintenance SET beat_at = NULL")
    assert maintain(one) is not None
    world.check()
    assert outbox_ids(one, "state") == sorted(world.newest.values())
    assert outbox_ids(one, "aged") == []
    assert outbox_ids(one, "settled")[0] == unsettled(one, "settled")["g"][0]
    while batch := one.claim(100, "g", "settled state"):
        one.ack(batch)
    maintain(one)
    assert outbox_ids(one, "settled") == []
    assert one.value("SELECT count(*) FROM durable_notify.dedup") == 0


def test_twice_at_once(sessions: Sessions, dsn: str) -> None:
    """Two that take no notice of each other, as after a pause: each step is done once."""
    one = sessions.session()
    plant(one, "maintain_step", ("WHERE m.worker = worker FOR UPDATE;", "LIMIT 1;"))
    plant(one, "maintain_begin", ("RETURN false;", "RETURN true;"))
    world = World(one)
    for _ in range(5):
        world.more()
        reports: list[object] = []

        def work(reports: list[object]) -> None:
            session = Session(dsn)
            reports.append(maintain(session))
            session.close()

        threads = [threading.Thread(target=work, args=[reports]) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(reports) == 2
        assert not [name for report in reports for name in report if "failed" in name]  # type: ignore[attr-defined]
        world.check()
    maintain(one)
    assert outbox_ids(one, "state") == sorted(world.newest.values())
    assert outbox_ids(one, "aged") == []


def test_an_hour_late(sessions: Sessions) -> None:
    """Nothing depends on when it was done last."""
    one = sessions.session()
    world = World(one)
    for _ in range(4):
        world.more()
    one.run(
        "INSERT INTO durable_notify.maintenance (worker, beat_at, done_at) VALUES ('x', now() - interval '1 hour', now() - interval '2 hours')"
    )
    world.check()
    assert maintain(one)
    world.check()
    assert outbox_ids(one, "aged") == []
