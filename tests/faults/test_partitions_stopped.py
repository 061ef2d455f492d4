"""What maintenance does to the log's partitions is stopped at every one of its statements.

Asserted each time: the log reads as before, or without what may go; and at the end, not stopped, all
is done that was to be, and nothing is left behind of what was stopped.
"""

from __future__ import annotations

import psycopg
import pytest

from tests.sql.partitions.test_partitions import PARTITIONS, PUBLISH, WIDTH, tidy
from tests.support.injection import instrument, stop_at
from tests.support.retention import lay_out_partitions, make_partitions
from tests.support.sessions import Session, Sessions

KEPT = """
    CREATE OR REPLACE FUNCTION durable_notify.retention_watermark(topic text) RETURNS bigint
    LANGUAGE sql AS $$ SELECT CASE topic WHEN 't' THEN durable_notify._watermark() ELSE 0 END $$"""
IDS = "SELECT id FROM durable_notify.outbox ORDER BY id"
STRAY = """
    SELECT relname::text FROM pg_class c
     WHERE relnamespace = 'durable_notify'::regnamespace AND relname ~ '^outbox_' AND relkind = 'r'
       AND NOT relispartition
     UNION ALL
    SELECT conname::text FROM pg_constraint WHERE conname IN ('outbox_default_relief', 'outbox_bounds')"""
STEPS = {
    "tidy": "SELECT durable_notify.maintain_partitions()",
    "make": "SELECT durable_notify.create_partitions()",
}


def scene(owner: Session) -> None:
    """Two partitions that are to go, one that is to stay, and a log that has come to the default."""
    lay_out_partitions(owner, WIDTH, ahead=3)
    owner.run(KEPT)
    owner.run(PUBLISH, "t", 2 * WIDTH)
    owner.run(PUBLISH, "stays", WIDTH)
    owner.run(PUBLISH, "stays", WIDTH + 20)
    owner.run("SELECT durable_notify._advance_watermark()")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["tidy", "make"])
def test_a_partition_stopped_at_every_statement(dsn: str, what: str) -> None:
    with Sessions(dsn) as sessions:
        owner = sessions.session()
        scene(owner)
        instrument(owner)
        stays = owner.column(
            "SELECT id FROM durable_notify.outbox WHERE topic = 'stays' ORDER BY id"
        )
        before = owner.column(IDS)
        stopped = 0
        number = 1
        while True:
            victim = Session(dsn)
            stop_at(victim, number, "terminate")
            try:
                done = victim.value(STEPS[what])
            except psycopg.errors.AdminShutdown:
                stopped += 1
                number += 1
                assert owner.column(IDS) == before
                continue
            finally:
                victim.close()
            before = owner.column(IDS)
            assert set(stays) <= set(before)
            number = 1
            if not done:
                break
        assert stopped > 20
        assert before == stays if what == "tidy" else len(before) == 4 * WIDTH + 20
        make_partitions(owner)
        tidy(owner)
        assert owner.column(IDS) == stays
        assert owner.run(PARTITIONS)[0][0] == 2 * WIDTH + 1
        assert owner.column(STRAY) == []
