"""Databases of other encodings than UTF-8.

Asserted: in each that PostgreSQL can convert to UTF-8, all that is done comes to the same; names and
channels mean the same in SQL and in Python; and what the encoding lacks is refused in words. A
database of SQL_ASCII, which has no encoding, is refused.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

import durable_notify as dn
from durable_notify import schema
from durable_notify.brokers.ingest import AsyncIngest
from durable_notify.errors import EncodingUnsupported, InvalidArgument, UnsupportedConnection
from durable_notify.topics import channel
from tests.support import everything
from tests.support.injection import plant
from tests.support.postgres import Postgres
from tests.support.sessions import Sessions

Connection = psycopg.Connection[Any]
#: Where bytes 80 to A0 are Unicode's control characters, where they are letters, and of several bytes.
ENCODINGS = ["LATIN1", "LATIN9", "WIN1252", "WIN1251", "KOI8R", "ISO_8859_5", "EUC_JP", "UTF8"]


def create(server: Postgres, name: str, encoding: str) -> None:
    with psycopg.connect(server.admin_dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        admin.execute(
            sql.SQL(
                "CREATE DATABASE {} ENCODING {} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
            ).format(sql.Identifier(name), sql.Literal(encoding))
        )


@pytest.fixture(params=ENCODINGS)
def encoded_dsn(request: pytest.FixtureRequest, server: Postgres) -> Iterator[str]:
    """A migrated database of an encoding, to which sessions speak UTF-8."""
    with server.database() as name:
        create(server, name, request.param)
        schema.migrate(server.dsn(name))
        yield make_conninfo(server.dsn(name), client_encoding="utf8")


@pytest.fixture
def without_encoding(server: Postgres) -> Iterator[str]:
    """A database of SQL_ASCII."""
    with server.database() as name:
        create(server, name, "SQL_ASCII")
        yield server.dsn(name)


@pytest.fixture(scope="module")
def usual(server: Postgres, template: str) -> Any:
    with server.database(template) as name:
        return everything.run(server.dsn(name))


@pytest.mark.parametrize(
    ("encoding", "client"),
    [("LATIN1", ""), ("LATIN1", "utf8"), ("WIN1252", ""), ("EUC_JP", "utf8")],
)
def test_all_of_it(server: Postgres, usual: Any, encoding: str, client: str) -> None:
    """Whatever the sessions of a publisher, or an administrator, speak."""
    with server.database() as name:
        create(server, name, encoding)
        dsn = server.dsn(name)
        schema.migrate(dsn)
        given = {"client_encoding": client} if client else {}
        assert everything.run(make_conninfo(dsn, **given)) == usual


def test_names_mean_the_same(encoded_dsn: str) -> None:
    """Each character that the encoding has is allowed in a topic and key, or not, as in Python."""
    with psycopg.connect(encoded_dsn, autocommit=True) as connection:
        assert taken_otherwise(connection) == []


def test_planted_bytes_are_taken_for_characters(server: Postgres) -> None:
    with server.database() as name:
        create(server, name, "WIN1252")
        schema.migrate(server.dsn(name))
        with Sessions(server.dsn(name)) as sessions:
            session = sessions.session()
            plant(session, "_has_controls", ("THEN false", "THEN false WHEN true THEN true"))
            session.run("SET client_encoding = 'utf8'")
            assert ("key", "€") in taken_otherwise(session.connection)


def taken_otherwise(connection: Connection) -> list[tuple[str, str]]:
    """Characters that SQL takes, or does not, and Python does otherwise."""
    differ = []
    for number in (*range(1, 0x180), *range(0x400, 0x460), 0x20AC, 0x2022, 0x3042, 0xFF71):
        character = chr(number)
        try:
            connection.execute("SELECT %s::text", [character])
        except psycopg.errors.UntranslatableCharacter:
            continue
        for kind, check in (("topic", dn_topic), ("key", dn_key)):
            topic, key = (character, "k") if kind == "topic" else ("t", character)
            insert = "INSERT INTO durable_notify.outbox (topic, key, payload) VALUES (%s, %s, '1')"
            try:
                connection.execute(insert, [topic, key])
                taken = True
            except psycopg.errors.CheckViolation:
                taken = False
            if taken != check(character):
                differ.append((kind, character))
    return differ


def dn_topic(name: str) -> bool:
    return _is_right(dn.topics.check_topic, name)


def dn_key(name: str) -> bool:
    return _is_right(dn.topics.check_key, name)


def _is_right(check: Any, name: str) -> bool:
    try:
        check(name)
    except InvalidArgument:
        return False
    return True


def test_channels_are_the_same(encoded_dsn: str) -> None:
    names = ["t" * length for length in (47, 48, 49, 255)]
    with psycopg.connect(encoded_dsn, autocommit=True) as connection:
        for letter in "éЖあｱ€":
            try:
                connection.execute("SELECT %s::text", [letter])
            except psycopg.errors.UntranslatableCharacter:
                continue
            names += [letter * length for length in (12, 16, 17, 20, 24, 25, 47, 48, 49, 60)]
        query = (
            "SELECT t, durable_notify.channel(t), octet_length(t),"
            " octet_length(durable_notify.channel(t)) FROM unnest(%s::text[]) AS t"
        )
        for name, its_channel, length, channel_length in connection.execute(
            query, [names]
        ).fetchall():
            assert channel_length <= 63
            if length <= max(48, len(name.encode())):  # else it has no room, and Python cannot know
                assert its_channel == channel(name)


def test_what_the_encoding_lacks_is_refused(server: Postgres) -> None:
    """By every function that gets such a name; the text of an error is kept nevertheless."""
    with server.database() as name:
        create(server, name, "LATIN1")
        dsn = server.dsn(name)
        schema.migrate(dsn)
        utf8 = make_conninfo(dsn, client_encoding="utf8")
        for odd in (dsn, utf8):
            with psycopg.connect(odd, autocommit=True) as connection:
                for topic, payload, key in (("заказ", 1, None), ("t", "€", None), ("t", 1, "€")):
                    with pytest.raises(InvalidArgument, match=r"no equivalent|lacks a character"):
                        dn.Publisher().publish(connection, topic, payload, key=key)
                with pytest.raises(InvalidArgument):
                    dn.Admin().set_notify_policy(connection, "заказ", "always")
        with pytest.raises(InvalidArgument, match="no equivalent"):
            dn.Consumer(dsn, group="g", topics=["заказ"]).run(print)
        with pytest.raises(InvalidArgument, match="no equivalent"):
            dn.Consumer(dsn, group="€", topics=["t"]).run(print)
        with pytest.raises(InvalidArgument, match="no equivalent"), dn.Reader(dsn, topics=["€"]):
            pass
        with psycopg.connect(utf8, autocommit=True) as connection:
            dn.Publisher().publish(connection, "t", 1)

            def handle(message: dn.Message) -> None:
                if message.attempt == 1:
                    raise ValueError("no € and ü")
                message.reject("€ ü", {"ключ": "€ ü"})

            dn.Consumer(
                dsn,
                group=dn.Group("g", retry=dn.RetryPolicy(base=0.001)),
                topics=["t"],
                until_empty=True,
                maintenance=False,
            ).run(handle)
            (letter,) = dn.Admin().dead_letters(connection)
    assert (letter.reason, list((letter.error or {}).values())) == ("\\u20ac ü", ["\\u20ac ü"])


async def test_ingested_all_the_same(server: Postgres) -> None:
    """What a broker sends cannot be refused for good: it would be redelivered for ever."""
    with server.database() as name:
        create(server, name, "LATIN1")
        dsn = server.dsn(name)
        schema.migrate(dsn)
        url = "amqp://127.0.0.1:1"
        ingest = AsyncIngest(make_conninfo(dsn), broker_url=url, queue="p", topic="t")
        messages = [
            dn.NewMessage('"\u00fc"', key="k"),
            dn.NewMessage('"\u20ac"', key="k"),
            dn.NewMessage('"x"', key="\u20ac", headers={"h": "\u20ac"}),
        ]
        arrival: Any = None  # looked at only where none of it can be published
        await ingest._publish_all([(arrival, message) for message in messages])
        await ingest._connection.close()
        with dn.Reader(dsn, topics=["t"], until_empty=True) as reader:
            found = [(message.key, message.payload, message.headers) for message in reader]
    lacking = {
        "ingest-error": "the encoding of the database lacks a character of its key or headers"
    }
    assert found == [("k", "\u00fc", {}), ("k", '"\u20ac"'.encode(), {}), (None, b'"x"', lacking)]


def test_none_at_all(without_encoding: str) -> None:
    """Refused by those who migrate, and, restored from a dump, by all others."""
    odd = make_conninfo(without_encoding, client_encoding="utf8")
    for dsn in (without_encoding, odd):
        with pytest.raises(EncodingUnsupported, match="TEMPLATE template0"):
            schema.migrate(dsn)
        with psycopg.connect(dsn, autocommit=True) as connection:
            with pytest.raises(psycopg.errors.FeatureNotSupported, match="SQL_ASCII"):
                connection.execute(schema.migration_sql().encode())
            connection.rollback()
            with pytest.raises(EncodingUnsupported):
                schema.check(connection)
            with pytest.raises(EncodingUnsupported):
                dn.Publisher().publish(connection, "t", 1)
            with pytest.raises(EncodingUnsupported):
                dn.Admin().status(connection)
        with pytest.raises(EncodingUnsupported):
            dn.Consumer(dsn, group="g", topics=["t"]).run(print)
        with pytest.raises(EncodingUnsupported), dn.Reader(dsn, topics=["t"]):
            pass


def test_a_session_without_encoding(server: Postgres) -> None:
    """What it sends is UTF-8: where the database's is another, that would be other text."""
    with server.database() as name:
        create(server, name, "LATIN1")
        schema.migrate(server.dsn(name))
        with psycopg.connect(server.dsn(name), client_encoding="SQL_ASCII") as connection:
            with pytest.raises(UnsupportedConnection, match="client_encoding=utf8"):
                dn.Publisher().publish(connection, "t", "ü")


class Topic(str, enum.Enum):  # noqa: UP042 - as many projects have it
    ORDERS = "orders.placed"

    def __format__(self, spec: str) -> str:
        return "formatted"


class Shouted(str):  # noqa: SLOT000
    def __str__(self) -> str:
        return self.upper()


@pytest.mark.parametrize("name", [Topic.ORDERS, Shouted("orders.placed")])
def test_a_name_is_a_plain_str(name: str) -> None:
    for checked in (
        dn.topics.check_topic(name), dn.topics.check_group(name), dn.topics.check_key(name),
        dn.topics.check_pattern(name), dn.topics.check_topics([name])[0],
        dn.topics.check_channel(name),
    ):  # fmt: skip
        assert type(checked) is str
        assert checked == "orders.placed"
    assert channel(name) == "durable_notify:orders.placed"


@pytest.mark.parametrize("name", [Topic.ORDERS, Shouted("orders.placed")])
def test_named_by_a_kind_of_str(dsn: str, name: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        admin, got = dn.Admin(), []
        consumer = dn.Consumer(
            dsn, group=name, topics=[name], until_empty=True, owner=name, maintenance=False
        )
        dn.Publisher().publish(connection, name, 1, key=name)
        dn.Publisher().publish_many(
            connection, name, [dn.NewMessage(2, key=name), dn.NewMessage(3, key="k")]
        )
        consumer.run(got.append)
        found = sorted((message.topic, message.key) for message in got)
        assert found == [("orders.placed", key) for key in ("k", "orders.placed", "orders.placed")]
        job = admin.start_replay(connection, name, name, keys=[name, "k"], dry_run=True)
        (group,) = admin.groups(connection)
        assert (job, group.name, group.topics) == (3, "orders.placed", ["orders.placed"])
        with dn.Reader(dsn, topics=[name], until_empty=True) as reader:
            assert len(list(reader)) == 3
