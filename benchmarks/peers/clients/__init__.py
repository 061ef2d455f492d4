"""One module for each peer; `PEERS` names them all."""

from __future__ import annotations

import importlib

from benchmarks.peers.base import Peer

#: Name: module and class. Loaded only by the process that measures it.
PEERS = {
    "durable_notify": ("ours", "DurableNotify"),
    "bare-notify": ("bare", "BareNotify"),
    "pgqueuer-psycopg": ("pgqueuer", "PgQueuerPsycopg"),
    "pgqueuer-asyncpg": ("pgqueuer", "PgQueuerAsyncpg"),
    "procrastinate": ("procrastinate", "Procrastinate"),
    "pgmq": ("pgmq", "Pgmq"),
    "river": ("program", "River"),
    "pg-boss": ("program", "PgBoss"),
    "graphile-worker": ("program", "GraphileWorker"),
    "faststream-outbox": ("faststream_outbox", "FaststreamOutbox"),
    "rabbitmq-classic": ("rabbitmq", "RabbitClassic"),
    "rabbitmq-quorum": ("rabbitmq", "RabbitQuorum"),
    "nats": ("nats", "Nats"),
    "nats-sync": ("nats", "NatsSync"),
    "redis": ("redis", "RedisStreams"),
}


def load(name: str) -> type[Peer]:
    """Import a peer's class."""
    module, attribute = PEERS[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
