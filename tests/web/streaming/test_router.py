"""The streams as a router of FastAPI, and what a server does with them when it stops."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Annotated, Any

import httpx
import psycopg
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from websockets.sync.client import connect

import durable_notify as dn
from durable_notify.web import StreamAccess
from durable_notify.web.streaming.router import stream_router
from tests.web.conftest import served
from tests.web.streaming.test_http import Events, stream

Connection = psycopg.Connection[Any]


def known(x_user: Annotated[str | None, Header()] = None) -> None:
    if x_user is None:
        raise HTTPException(401, "who are you?")


def test_router(dsn: str, conn: Connection) -> None:
    router = stream_router(dsn, authorize=lambda _: StreamAccess(("orders.*",)))
    app = FastAPI(dependencies=[Depends(known)])
    app.include_router(router, prefix="/live", tags=["live"])
    sent = dn.Publisher().publish(conn, "orders.eu", {})
    ann = {"x-user": "ann"}
    with served(app) as base, httpx.Client(base_url=base, headers=ann) as client:
        with httpx.stream(
            "GET", f"{base}/live/events?topic=orders.eu&start=beginning", headers=ann
        ) as answer:
            assert Events(answer.iter_lines()).next("message")["id"] == sent
            assert router.stats().clients == 1
        found = client.get("/live/messages?topic=orders.*&start=beginning").json()
        assert [message["id"] for message in found["messages"]] == [sent]
        with connect(f"{base.replace('http', 'ws')}/live/socket", additional_headers=ann) as socket:
            socket.send(json.dumps({"topics": ["orders.*"], "start": "beginning"}))
            assert json.loads(socket.recv(20))["event"] == "place"
            assert json.loads(socket.recv(20))["data"]["id"] == sent
        assert "EventSource" in client.get("/live/durable-notify.js").text
        for path, status, reason in (
            ("events?topic=prices", 403, "You may not read prices."),
            ("messages?topic=a b", 400, "white space"),
        ):
            refused = client.get(f"/live/{path}")
            assert refused.status_code == status
            assert reason in refused.json()["detail"]
        assert httpx.get(f"{base}/live/events?topic=orders.eu").status_code == 401
        paths = client.get("/openapi.json").json()["paths"]
    assert paths.keys() == {"/live/events", "/live/messages"}
    for path, names in (("events", "topic start after"), ("messages", "topic start after wait")):
        given = {each["name"] for each in paths[f"/live/{path}"]["get"]["parameters"]}
        assert given >= set(names.split())
    assert router.stats().hubs == 0  # its lifespan has closed them


SERVER = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from durable_notify.web import StreamAccess, streams
inner = streams(sys.argv[1], authorize=lambda _: StreamAccess(("t",)))
app = Starlette(routes=[Mount("/live", inner)])
class Says(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)
Says(uvicorn.Config(app, port=0, log_level="critical")).run()
"""


@pytest.mark.server
def test_a_server_that_stops_does_not_wait_for_streams(dsn: str) -> None:
    """uvicorn has no limit here for how long it waits."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, dsn], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            base = f"http://127.0.0.1:{process.stdout.readline().strip()}/live"
            with stream(f"{base}/events?topic=t") as events:
                events.next("place")
                process.send_signal(signal.SIGTERM)
                with pytest.raises(EOFError):  # a clean end: the browser connects again
                    events.next("message")
            process.wait(20)
        finally:
            process.kill()
