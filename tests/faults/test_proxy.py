"""The proxy between clients and a server, that the runs on networks stand on."""

import socket
import threading
import time

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from durable_notify.torture.proxy import Proxy
from tests.support.wait import eventually


@pytest.fixture
def proxy(dsn):
    with Proxy(dsn) as running:
        yield running


def asks(connection, question="SELECT 1"):
    return connection.execute(question).fetchone()[0]


def hangs(connection, proxy):
    """Whether a question is still without an answer, asked in a thread; and the thread."""
    failed = []

    def ask():
        try:
            connection.execute("SELECT 1")
        except psycopg.Error as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()
    return thread, failed


def test_bytes_go_through_unchanged_and_are_counted(proxy):
    with psycopg.connect(proxy.dsn(), autocommit=True) as connection:
        large = "x" * 3_000_000
        assert asks(connection, f"SELECT '{large}'") == large
        assert proxy.connections == proxy.open == 1
        assert proxy.to_server > 3_000_000
        assert proxy.to_client > 3_000_000
    eventually(lambda: proxy.open == 0)


@pytest.mark.parametrize("direction", ["both", "to_server", "to_client"])
def test_a_black_hole_keeps_connections_open_and_lets_nothing_arrive(proxy, direction):
    with psycopg.connect(proxy.dsn(), autocommit=True) as connection:
        proxy.blackhole(direction)
        before = proxy.to_server, proxy.to_client
        thread, failed = hangs(connection, proxy)
        assert (proxy.to_server == before[0]) == (direction != "to_client")
        assert proxy.to_client == before[1]
        host, port = (conninfo_to_dict(proxy.dsn())[name] for name in ("host", "port"))
        with socket.create_connection((host, port)) as late:
            late.settimeout(0.2)
            with pytest.raises(TimeoutError):
                late.recv(1)
        proxy.forward()
        thread.join(10)
        assert not failed
        assert asks(connection) == 1


def test_what_was_in_a_black_hole_can_stay_dead(proxy):
    with psycopg.connect(proxy.dsn(), autocommit=True) as connection:
        proxy.blackhole()
        thread, failed = hangs(connection, proxy)
        proxy.forward(leave_dead=True)
        thread.join(0.3)
        assert thread.is_alive()
        with psycopg.connect(proxy.dsn()) as other:
            assert asks(other) == 1
        proxy.cut()
        thread.join(10)
        assert failed


def test_delay_holds_up_both_directions(proxy):
    with psycopg.connect(proxy.dsn(), autocommit=True) as connection:
        proxy.delay(0.2)
        begun = time.monotonic()
        assert asks(connection) == 1
        assert time.monotonic() - begun >= 0.4
        proxy.forward()


def test_cut_ends_connections_now_or_in_the_middle_of_a_message(proxy):
    with psycopg.connect(proxy.dsn(), autocommit=True) as connection:
        proxy.cut()
        with pytest.raises(psycopg.OperationalError):
            asks(connection)
    for direction in ("to_server", "to_client"):
        with psycopg.connect(proxy.dsn(), autocommit=True) as connection:
            proxy.cut(7, direction)
            before = proxy.to_server, proxy.to_client
            with pytest.raises(psycopg.OperationalError):
                asks(connection)
            passed = proxy.to_server - before[0], proxy.to_client - before[1]
            assert passed[direction == "to_client"] == 7


def test_refused_connections_and_a_server_that_is_started_by_the_first(proxy):
    calls = []
    with psycopg.connect(proxy.dsn(), autocommit=True) as connection:
        proxy.refuse()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(proxy.dsn())
        assert asks(connection) == 1
    proxy.forward()
    proxy.on_connect(lambda: calls.append(1))
    psycopg.connect(proxy.dsn()).close()
    assert calls == [1]
