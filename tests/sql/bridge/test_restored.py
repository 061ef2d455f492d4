"""Bridges in a dump that is restored, and pg_notify() from psql."""

from __future__ import annotations

import subprocess

import psycopg
from psycopg.conninfo import make_conninfo

from durable_notify.embedded import Server
from tests.support.cli import drain, good

SETUP = """
    CREATE TABLE items (gone int, id int PRIMARY KEY, secret text, name text, code int);
    ALTER TABLE items DROP COLUMN gone;
    SELECT durable_notify.watch('items', 'chosen', '{name,code}');
    ALTER TABLE items DROP COLUMN secret;
    ALTER TABLE items ADD COLUMN secret text DEFAULT 'hush';
    SELECT durable_notify.watch('items', 'all', with_old => false);
    SELECT durable_notify.set_mirror('all', 'it''s a "channel"');
    SELECT durable_notify.create_compat();
"""
BRIDGES = "SELECT * FROM durable_notify.bridges()"


def psql(server: Server, dsn: str, text: str) -> str:
    command = [str(server.bindir / "psql"), "-qXAt", "-v", "ON_ERROR_STOP=1", dsn]
    done = subprocess.run(command, input=text.encode(), check=True, capture_output=True)
    return done.stdout.decode()


def test_a_dump_restored(private_server: Server) -> None:
    """All of it is there, and does the same: the columns' numbers are others, and they are the same."""
    dsn = private_server.dsn()
    good("migrate", dsn=dsn)
    psql(private_server, dsn, SETUP)
    psql(private_server, dsn, "CREATE DATABASE copy TEMPLATE template0")
    copy = make_conninfo(dsn, dbname="copy")
    dump = [str(private_server.bindir / "pg_dump"), "--no-owner", dsn]
    text = subprocess.run(dump, check=True, capture_output=True).stdout
    psql(private_server, copy, text.decode())
    good("reanchor", dsn=copy)
    with psycopg.connect(dsn) as there, psycopg.connect(copy, autocommit=True) as here:
        number = "SELECT attnum FROM pg_attribute WHERE attrelid = 'items'::regclass AND attname = 'code'"
        assert there.execute(number).fetchone() != here.execute(number).fetchone()
        assert there.execute(BRIDGES).fetchall() == here.execute(BRIDGES).fetchall()
        here.execute('LISTEN "it\'s a ""channel"""')
        here.execute("INSERT INTO items VALUES (1, 'a', 2)")
        (told,) = here.notifies(timeout=20, stop_after=1)
        assert '"secret": "hush"' in told.payload
        (change,) = drain(copy, "chosen")
        assert change["new"] == {"name": "a", "code": 2}
        here.execute("SELECT durable_notify.unwatch('items', 'chosen')")
        here.execute("SELECT durable_notify.unwatch('items', 'all')")
        here.execute("SELECT durable_notify.set_mirror('all', NULL)")
        here.execute("SELECT durable_notify.drop_compat()")
        assert here.execute(BRIDGES).fetchall() == []


def test_psql(private_server: Server) -> None:
    """After one ALTER ROLE, with nothing else changed; the next one takes it back."""
    dsn = private_server.dsn()
    good("migrate", dsn=dsn)
    shown = good("bridge", "compat", dsn=dsn)
    (alter,) = (line for line in shown.splitlines() if "ALTER ROLE" in line)
    psql(private_server, dsn, alter.replace("...", "CURRENT_USER"))
    psql(private_server, dsn, "SELECT pg_notify('c', 'durable');\nNOTIFY c, 'not caught';")
    psql(private_server, dsn, "ALTER ROLE CURRENT_USER RESET search_path")
    psql(private_server, dsn, "SELECT pg_notify('c', 'as before');")
    assert drain(dsn, "c") == ["durable"]
