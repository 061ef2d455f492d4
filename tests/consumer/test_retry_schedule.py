"""How long a message that always fails takes to become a dead letter."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import psycopg

import durable_notify as dn
from tests.support.cli import fails, good, run
from tests.support.postgres import CHECKOUT

Connection = psycopg.Connection[Any]
UNITS = {"s": 1, "min": 60, "h": 3600}
#: The sum of many random delays; the first attempt has none.
QUERY = """
    SELECT extract(epoch FROM sum(durable_notify._backoff(g, a)))::float8
      FROM durable_notify.consumer_group g, generate_series(1, g.max_attempts - 1) AS a"""


DRAWN = """
    SELECT durable_notify._backoff(g, a)
      FROM durable_notify.consumer_group g, generate_series(1, 5) AS a ORDER BY a"""


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


def test_a_list_of_delays(dsn: str, conn: Connection) -> None:
    """By Python and by the command line; an empty list gives the other parts back."""
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")

    def drawn(wanted: list[float]) -> bool:
        """Whether each delay is half fixed and half random."""
        found = [delay.total_seconds() for (delay,) in conn.execute(DRAWN).fetchall()]
        return all(top / 2 <= one <= top for one, top in zip(found, wanted, strict=True))

    defaults = [1.0, 2.0, 4.0, 8.0, 16.0]
    listed = [0.0, 5.0, 3600.0, 3600.0, 3600.0]
    assert drawn(defaults)
    policy = dn.RetryPolicy(delays=[0, 5, timedelta(hours=1)])
    dn.Admin().configure(conn, "g", retry=policy)
    assert dn.Admin().groups(conn)[0].retry_delays == [0, 5, 3600]
    for _ in range(20):
        assert drawn(listed)
    dn.Admin().configure(conn, "g", retry=dn.RetryPolicy(base=2))
    assert drawn(listed)  # a list stays until it is changed
    good("group", "configure", "g", "--retry-base", "1", "--retry-delays", "none", dsn=dsn)
    assert drawn(defaults)
    good("group", "configure", "g", "--retry-delays", "0,5,3600", dsn=dsn)
    assert drawn(listed)
    fails(run("group", "configure", "g", "--retry-delays", "5s", dsn=dsn), 2, "no list of seconds")
