"""The endpoints: what they answer, refuse, and send."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psycopg
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

import durable_notify as dn
from durable_notify._core.position import decode, encode
from durable_notify.errors import InvalidArgument
from durable_notify.web import StreamAccess, streams
from tests.support.wait import eventually
from tests.web.conftest import served

Connection = psycopg.Connection[Any]
ALL = StreamAccess((">",))
Start = Callable[..., str]


class Events:
    """An event stream, read as a browser does."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.token = ""

    def next(self, name: str) -> Any:
        """Skip to the next event of a name; its data."""
        while True:
            given = {"event": "message", "data": ""}
            for line in self._lines:
                if not line:
                    break
                field, _, value = line.partition(":")
                given[field] = value.removeprefix(" ")
            else:
                raise EOFError  # what it got of an event does not count
            self.token = given.get("id", self.token)
            if given["data"] and given["event"] == name:
                return json.loads(given["data"])


@pytest.fixture
def start(dsn: str) -> Iterator[Start]:
    """Serve streams of the test's database; returns the address of each."""
    with contextlib.ExitStack() as stack:

        def begin(access: Any = ALL, *, to: str = dsn, **options: Any) -> str:
            authorize = access if callable(access) else lambda _: access
            app = streams(to, authorize=authorize, **options)
            begin.app = app  # type: ignore[attr-defined]
            return stack.enter_context(served(app))

        yield begin


@contextlib.contextmanager
def stream(url: str, token: str = "", **options: Any) -> Iterator[Events]:
    headers = {"last-event-id": token} if token else {}
    with httpx.stream("GET", url, headers=headers, timeout=20, **options) as answer:
        assert answer.status_code == 200
        yield Events(answer.iter_lines())


def put(connection: Connection, topic: str, payload: Any = None, **options: Any) -> int:
    return dn.Publisher().publish(connection, topic, payload or {}, **options)


def test_an_id_at_once_then_messages(start: Start, conn: Connection) -> None:
    url = f"{start()}/events?topic=orders.*"
    with stream(url) as events:
        events.next("place")
        first = events.token
        assert first
        sent = put(conn, "orders.eu", {"total": 3}, key="k", headers={"a": "b"})
        message = events.next("message")
        assert message.pop("published_at").endswith("Z")
        assert message == {
            "id": sent, "topic": "orders.eu", "key": "k", "payload": {"total": 3}, "headers": {"a": "b"}
        }  # fmt: skip
    with stream(url, first) as events:
        assert events.next("message")["id"] == sent
        later = put(conn, "orders.us")
        assert events.next("message")["id"] == later


def test_headers(start: Start) -> None:
    with httpx.stream("GET", f"{start()}/events?topic=t") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store, no-transform"
        assert answer.headers["x-accel-buffering"] == "no"
        assert next(answer.iter_raw()).startswith(b"retry: ")


def test_bytes(start: Start, conn: Connection) -> None:
    dn.Publisher().publish(conn, "t", b"\x00\xff")
    with stream(f"{start()}/events?topic=t&start=beginning") as events:
        message = events.next("message")
        assert (message["payload"], message["base64"]) == (None, "AP8=")


def test_latest_then_live(start: Start, conn: Connection) -> None:
    put(conn, "prices", 1, key="a")
    sent = [put(conn, "prices", 2, key="b"), put(conn, "prices", 3, key="a")]
    with stream(f"{start()}/events?topic=prices&start=latest") as events:
        assert [events.next("message")["id"] for _ in range(2)] == sent
        assert not events.token  # a part of the snapshot is nothing to continue from
        events.next("place")
        sent.append(put(conn, "prices", 4, key="a"))
        assert events.next("message")["id"] == sent[2]


def test_from_a_time(start: Start, conn: Connection) -> None:
    put(conn, "t")
    (at,) = conn.execute("SELECT clock_timestamp()").fetchone() or ()
    sent = put(conn, "t")
    url = httpx.URL(f"{start()}/events", params={"topic": "t", "start": at.isoformat()})
    with stream(str(url)) as events:
        assert events.next("message")["id"] == sent


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "name what to read"),
        ("topic=a b", "white space"),
        ("topic=a&start=never", "a time with its zone"),
        ("topic=a&start=2027-01-01T00:00:00", "a time with its zone"),
        ("topic=a&after=nonsense", "not a token of a stream"),
        ("topic=a&after=r1.AAAA~AAAA", "not a token of a stream"),
        ("topic=a&after=" + 8000 * "x", "8000 bytes, and may have 7000"),
        ("&".join(101 * ["topic=a"]), "at most 100 topics"),
    ],
)
@pytest.mark.parametrize("path", ["events", "messages"])
def test_what_is_refused_before_anything_is_sent(
    path: str, query: str, reason: str, start: Start
) -> None:
    answer = httpx.get(f"{start()}/{path}?{query}")
    assert answer.status_code == 400
    assert reason in answer.text


def test_a_token_of_another_log(start: Start, dsn: str, conn: Connection) -> None:
    base = start()
    with stream(f"{base}/events?topic=t") as events:
        events.next("place")
        token = events.token
    _log, positions = decode(token)
    foreign = encode("another", positions)
    put(conn, "t")
    with stream(f"{base}/events?topic=t", foreign) as events:
        reset = events.next("reset")
        assert reset["topics"] == ["t"]
        assert "another outbox" in reset["reason"]
        assert events.token != foreign
        sent = put(conn, "t")
        assert events.next("message")["id"] == sent
    place = positions["t"]
    ahead = encode(_log, {"t": place._replace(s0="3:9000000:")})
    with stream(f"{base}/events?topic=t", ahead) as events:
        assert "ahead of this server" in events.next("reset")["reason"]
    answer = httpx.get(f"{base}/messages", params={"topic": "t", "after": foreign}).json()
    assert answer["reset"] == reset
    assert answer["messages"] == []


def test_a_gap(start: Start, conn: Connection) -> None:
    base = start()
    url = f"{base}/events?topic=orders.*"
    with stream(url) as events:
        events.next("place")
        first = put(conn, "orders.eu")
        events.next("message")
        token = events.token
        put(conn, "orders.eu")
        assert events.next("message")
    with stream(url, token) as events:
        assert events.next("message")  # no gap: its place is there
    kept = put(conn, "orders.eu")
    conn.execute("DELETE FROM durable_notify.outbox WHERE id < %s", [kept])
    other = start()  # whose ring does not have it any more
    with stream(f"{other}/events?topic=orders.*", token) as events:
        assert events.next("gap") == {"topics": {"orders.eu": {"after": first}}}
        assert events.next("message")["id"] == kept
    conn.execute("DELETE FROM durable_notify.outbox")
    with stream(f"{start()}/events?topic=orders.*", token) as events:
        assert events.next("gap") == {"topics": {"orders.eu": {"after": first}}}


def test_access(start: Start, conn: Connection) -> None:
    access = StreamAccess(
        ("orders.*",), filter=lambda m: m.payload["user"] == 7, masks=("card", "trace")
    )
    base = start(access)
    assert httpx.get(f"{base}/events?topic=orders.>").status_code == 403
    assert httpx.get(f"{base}/events?topic=prices").text == "You may not read prices."
    with stream(f"{base}/events?topic=orders.*") as events:
        events.next("place")
        put(conn, "orders.eu", {"user": 8})
        put(conn, "orders.eu", {"user": 7, "card": {"number": 1}}, headers={"trace": "x", "y": "z"})
        message = events.next("message")
        assert message["payload"] == {"user": 7, "card": "•••"}
        assert message["headers"] == {"trace": "•••", "y": "z"}


def test_nothing_is_allowed(start: Start) -> None:
    base = start(lambda _: None)
    assert httpx.get(f"{base}/events?topic=t").status_code == 403
    assert httpx.get(f"{base}/messages?topic=t").status_code == 403
    with pytest.raises(InvalidStatus):
        with connect(f"{base.replace('http', 'ws')}/socket"):
            pass


def test_access_is_checked_again(start: Start) -> None:
    allowed = threading.Event()
    allowed.set()

    async def authorize(_: Any) -> StreamAccess | None:
        return StreamAccess(("t",)) if allowed.is_set() else None

    base = start(authorize, recheck=0.05)
    with httpx.stream("GET", f"{base}/events?topic=t", timeout=20) as answer:
        chunks = answer.iter_raw()
        next(chunks)
        allowed.clear()
        for _ in chunks:
            pass  # it ends
    assert httpx.get(f"{base}/events?topic=t").status_code == 403


def test_too_many_clients(start: Start) -> None:
    base = start(max_clients=1)
    with stream(f"{base}/events?topic=t") as events:
        events.next("place")
        answer = httpx.get(f"{base}/events?topic=t")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        assert start.app.state.stats().refused == 1  # type: ignore[attr-defined]
    stats = start.app.state.stats  # type: ignore[attr-defined]

    def gone() -> bool:
        return stats().clients == 0

    eventually(gone)


def test_a_slow_client_is_disconnected_and_loses_nothing(
    start: Start, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("durable_notify.web.streaming.client.BEAT", 0.05)
    base = start(buffer_bytes=2_000_000)
    stats = start.app.state.stats  # type: ignore[attr-defined]
    got: list[int] = []
    with stream(f"{base}/events?topic=t") as events:
        events.next("place")
        sent = dn.Publisher().publish_many(conn, "t", [{"x": "x" * 20_000}] * 1_000)

        def shed() -> bool:
            return stats().shed == 1

        eventually(shed)
        with pytest.raises((EOFError, httpx.RemoteProtocolError)):
            while True:
                got.append(events.next("message")["id"])
    assert 0 < len(got) < 1_000
    with stream(f"{base}/events?topic=t", events.token) as events:
        while len(got) < 1_000:
            got.append(events.next("message")["id"])
    assert got == sent


def test_beats(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("durable_notify.web.streaming.client.BEAT", 0.05)
    with stream(f"{start()}/events?topic=t") as events:
        for _ in range(3):
            assert events.next("beat") == {}


def test_a_beat_moves_a_client_past_what_it_may_not_see(
    start: Start, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("durable_notify.web.streaming.client.BEAT", 0.05)
    with stream(f"{start(StreamAccess(('t',), filter=lambda _: False))}/events?topic=t") as events:
        events.next("place")
        first = events.token
        put(conn, "t")
        while events.token == first:
            events.next("beat")


def test_long_polling(start: Start, conn: Connection) -> None:
    base = start()
    with httpx.Client(base_url=base, timeout=20) as client:

        def poll(**params: Any) -> Any:
            return client.get("/messages", params={"topic": "t", **params}).json()

        first = poll()
        assert first["messages"] == []
        assert poll(after=first["after"])["messages"] == []
        sent = [put(conn, "t")]
        one = poll(after=first["after"], wait=20)
        assert [each["id"] for each in one["messages"]] == sent
        timer = threading.Timer(0.2, lambda: sent.append(put(conn, "t")))
        timer.start()
        two = poll(after=one["after"], wait=20)
        timer.join()
        assert [each["id"] for each in two["messages"]] == sent[1:]
        assert [each["id"] for each in poll(start="beginning")["messages"]] == sent
        assert client.get("/messages?topic=t&wait=51").status_code == 400
    with stream(f"{base}/events?topic=t", first["after"]) as events:  # the same tokens
        assert [events.next("message")["id"] for _ in range(2)] == sent


def test_websocket(start: Start, conn: Connection) -> None:
    url = f"{start().replace('http', 'ws')}/socket"
    with connect(url) as socket:
        socket.send(json.dumps({"topics": ["t"]}))
        place = json.loads(socket.recv(20))
        assert place["event"] == "place"
        sent = [put(conn, "t"), put(conn, "t")]
        assert json.loads(socket.recv(20))["data"]["id"] == sent[0]
    with connect(url) as socket:
        socket.send(json.dumps({"topics": ["t"], "after": place["id"]}))
        got = [json.loads(socket.recv(20)) for _ in range(3)]
        assert [each["data"]["id"] for each in got if each["event"] == "message"] == sent


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ("no json", "the first message says what to read"),
        ('{"topics": "t"}', "the first message says what to read"),
        ('{"topics": ["t"], "after": 3}', "after is text"),
        ('{"topics": ["t"], "after": "x"}', "not a token of a stream"),
        ('{"topics": ["u"]}', "You may not read u."),
    ],
)
def test_websocket_refuses(first: str, reason: str, start: Start) -> None:
    url = start(StreamAccess(("t",))).replace("http", "ws")
    with connect(f"{url}/socket") as socket:
        socket.send(first)
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(20)
    assert reason in str(caught.value)


def test_origins(start: Start) -> None:
    base = start(origins=["https://www.example.com"])
    socket = f"{base.replace('http', 'ws')}/socket"
    for origin in ("https://www.example.com", base, None):
        with connect(socket, origin=origin):  # type: ignore[arg-type]
            pass
    with pytest.raises(InvalidStatus):
        with connect(socket, origin="https://evil.example"):  # type: ignore[arg-type]
            pass
    with httpx.stream(
        "GET", f"{base}/events?topic=t", headers={"origin": "https://www.example.com"}
    ) as answer:
        assert answer.headers["access-control-allow-origin"] == "https://www.example.com"


def test_mounted_in_another_application(dsn: str, conn: Connection) -> None:
    inner = streams(dsn, authorize=lambda _: StreamAccess(("t",)))
    with served(Starlette(routes=[Mount("/live", inner)])) as base:
        sent = put(conn, "t")
        with stream(f"{base}/live/events?topic=t&start=beginning") as events:
            assert events.next("message")["id"] == sent
        assert "EventSource" in httpx.get(f"{base}/live/durable-notify.js").text


def test_no_schema(empty_dsn: str, start: Start) -> None:
    answer = httpx.get(f"{start(to=empty_dsn)}/events?topic=t")
    assert (answer.status_code, answer.text) == (503, "the stream cannot be read")


def test_options(dsn: str) -> None:
    for wrong in ({"max_clients": 0}, {"buffer_bytes": 10}, {"recheck": -1}):
        with pytest.raises(InvalidArgument):
            streams(dsn, authorize=lambda _: None, **wrong)  # type: ignore[arg-type]
