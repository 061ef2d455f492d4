"""JSON goes through the command line as it is written, and no line is left by halves."""

from __future__ import annotations

import gzip
import json
import resource
import signal
from pathlib import Path

import psycopg
import pytest

from durable_notify.brokers import cloudevents
from durable_notify.errors import InvalidArgument
from durable_notify.payloads import JsonText, NewMessage, encode, members
from tests.support.cli import fails, good, objects, run, start
from tests.support.retention import age, retain
from tests.support.sessions import Sessions

DEEP = "[" * 2000 + "]" * 2000
STORED = [
    "12345678901234567890.10", "0.1000000000000000055511151231257827", "1.10",
    '{"amount": 1.50, "s": "a\\"]}{", "l": [1.0, {"x": 100000000000000000000.5}]}',
    "1e400", "9" * 5000, DEEP,
]  # fmt: skip


def stored(dsn: str, topic: str) -> list[tuple[str, str]]:
    query = "SELECT payload::text, headers::text FROM durable_notify.outbox WHERE topic = %s ORDER BY id"
    with psycopg.connect(dsn) as connection:
        return connection.execute(query, [topic]).fetchall()


def test_lines(dsn: str) -> None:
    given = "\n".join(STORED[:4])
    good("publish", "t", dsn=dsn, given=given)
    good("publish", "t", STORED[0], dsn=dsn)
    found = [payload for payload, _ in stored(dsn, "t")]
    assert found[:3] + found[4:] == [*STORED[:3], STORED[0]]
    for number in ("1.50", "[1.0, ", "100000000000000000000.5"):
        assert number in found[3]


@pytest.mark.parametrize("way", ["archive", "consume"])
def test_again(sessions: Sessions, dsn: str, tmp_path: Path, way: str) -> None:
    """What an archive has, or consume prints, is the same when it is published again."""
    one = sessions.session()
    headers = '{"n": 1.10, "d": [12345678901234567890.10]}'
    for payload in STORED:
        one.run(
            "SELECT durable_notify.publish('t', %s::jsonb, 'k', headers => %s)", payload, headers
        )
    if way == "archive":
        retain(one, max_age="1 hour", archive=True)
        age(one, len(STORED))
        before = stored(dsn, "t")
        good("maintain", "--archive", str(tmp_path), dsn=dsn)
        (path,) = tmp_path.rglob("*.gz")
        lines = gzip.decompress(path.read_bytes())
    else:
        before = stored(dsn, "t")
        lines = good("consume", "t", "--group", "g", "--until-empty", dsn=dsn).encode()
    good("publish", "again", "--envelope", "--header", "more=1", dsn=dsn, given=lines)
    after = stored(dsn, "again")
    assert [payload for payload, _ in after] == [payload for payload, _ in before]
    assert len(after) == len(STORED)
    for _, kept in after:
        assert '"n": 1.10' in kept
        assert "12345678901234567890.10" in kept
        assert '"more": "1"' in kept


def test_what_postgresql_does_not_hold(dsn: str) -> None:
    for bad in ("[" * 100_000 + "]" * 100_000, "1e400000"):
        done = run("publish", "t", "--envelope", dsn=dsn, given=f'{{"payload": {bad}}}\n')
        fails(done, 1, "line 1: PostgreSQL refuses it")
    assert stored(dsn, "t") == []


def test_events_as_text() -> None:
    body = (
        '{"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "n": 5,'
        ' "data": {"amount": 12345678901234567890.10}}'
    )
    for given in (body, body.encode()):
        message = cloudevents.from_event(given, key="k")
        made = encode(message)
        assert made.payload == '{"amount": 12345678901234567890.10}'
        assert json.loads(made.headers or "")["ce_n"] == 5
    for bad in ("[]", "{", b"\xff", "1"):
        with pytest.raises(InvalidArgument, match="a JSON object"):
            cloudevents.from_event(bad)


def test_members() -> None:
    text = '{"a" : 1.10,"b":[1,{"c":"]\\"}"}] , "\\u0061\u00e4":"x", "e": {}}'
    assert members(text) == {"a": "1.10", "b": '[1,{"c":"]\\"}"}]', "aä": '"x"', "e": "{}"}
    assert members(" {} ") == {}
    assert members(f'{{"deep": {DEEP}}}') == {"deep": DEEP}
    for bad in ("", "[]", "{", '{"a"}', '{"a":}', '{"a":1', '{"a":1}x', '{"a":[1}', "{a:1}"):
        with pytest.raises(ValueError, match="character"):
            members(bad)
    assert encode(NewMessage(JsonText("1.10"), headers={"a": JsonText("2.50"), "b": 1})) == (
        "1.10", None, '{"a":2.50,"b":1}', None,
    )  # fmt: skip


def limited(size: int) -> None:
    """A file may have so many bytes: as on a full disk, a write ends in its midst."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_a_full_disk_has_no_half_a_line(dsn: str, tmp_path: Path) -> None:
    for number in range(3):
        good("publish", "t", json.dumps({"n": number, "pad": "x" * 500}), dsn=dsn)
    path = tmp_path / "lines"
    arguments = ("consume", "t", "--group", "g", "--until-empty")
    for size in (900, 900, 10_000):
        with path.open("ab") as file:
            process = start(*arguments, dsn=dsn, stdout=file, preexec_fn=lambda: limited(size))  # noqa: B023
            _, said = process.communicate(timeout=60)
        assert process.returncode == (0 if size == 10_000 else 1), said.decode()
        if size < 10_000:
            assert "File too large" in said.decode()
            assert [line["payload"]["n"] for line in objects(path.read_text())] == [0]
    # Without a key no order is promised: what was given back may be delivered after what was not.
    assert sorted(line["payload"]["n"] for line in objects(path.read_text())) == [0, 1, 2]


def test_half_a_line_of_one_that_was_killed(dsn: str, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text('{"id": 1, "half')
    good("publish", "t", "1", dsn=dsn)
    with path.open("ab") as file:
        process = start("consume", "t", "--group", "g", "--until-empty", dsn=dsn, stdout=file)
        process.communicate(timeout=60)
    half, line = path.read_text().splitlines()
    assert half == '{"id": 1, "half'
    assert json.loads(line)["payload"] == 1
