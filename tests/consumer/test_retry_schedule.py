"""How long a message that always fails takes to become a dead letter."""

from __future__ import annotations

import re
from typing import Any

import psycopg

import durable_notify as dn
from tests.support.postgres import CHECKOUT

Connection = psycopg.Connection[Any]
UNITS = {"s": 1, "min": 60, "h": 3600}
#: The sum of many random delays; the first attempt has none.
QUERY = """
    SELECT extract(epoch FROM sum(durable_notify._backoff(g, a)))::float8
      FROM durable_notify.consumer_group g, generate_series(1, g.max_attempts - 1) AS a"""


def rows() -> list[list[str]]:
    text = (CHECKOUT / "docs" / "groups.md").read_text()
    part = text[text.index("### How long until a dead letter") :]
    found = re.findall(r"^\| (\d.*) \|$", part[: part.index("The first row")], re.MULTILINE)
    return [row.split(" | ") for row in found]


def seconds(text: str) -> float:
    number, unit = text.split()
    return float(number) * UNITS[unit]


def test_how_long_until_a_dead_letter(conn: Connection) -> None:
    """Each row of the page: the least and the most that the delays can be, rounded."""
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    found = rows()
    assert len(found) >= 5
    for index, (attempts, base, factor, longest, least, most) in enumerate(found):
        policy = dn.RetryPolicy(
            max_attempts=int(attempts), base=float(base), factor=float(factor), max=float(longest)
        )
        if index == 0:  # the default, as a new group has it
            (new,) = dn.Admin().groups(conn)
            assert (new.max_attempts, new.retry_base) == (policy.max_attempts, policy.base)
            assert (new.retry_factor, new.retry_max) == (policy.factor, policy.max)
        dn.Admin().configure(conn, "g", retry=policy)
        top = sum(
            min(float(longest), float(base) * float(factor) ** n) for n in range(int(attempts) - 1)
        )
        unit = UNITS[most.split()[1]]
        assert round(top / unit) == round(seconds(most) / unit), most
        unit = UNITS[least.split()[1]]
        assert round(top / 2 / unit) == round(seconds(least) / unit), least
        for _ in range(20):
            ((drawn,),) = conn.execute(QUERY).fetchall()
            assert top / 2 <= drawn <= top
