"""Every setting that a role or a database can have, each with two unusual values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

__all__ = ["LEFT_OUT", "Setting", "hostile", "put"]

Connection = psycopg.Connection[Any]


class Setting(NamedTuple):
    """A setting, and one value for it."""

    name: str
    value: str


#: Settings that are not tried, each with its reason.
LEFT_OUT = {
    "session_replication_role": "replica: rows are carried over, not published; tests/faults/test_moves.py",
    "default_transaction_read_only": "nothing can be written, and consumers wait: tests/faults/test_failover.py",
    "statement_timeout": "no statement ends: tests/faults/test_hostile_timeouts.py",
    "transaction_timeout": "no transaction ends: tests/faults/test_hostile_timeouts.py",
    "lock_timeout": "no lock is waited for: tests/faults/test_hostile_timeouts.py",
    "idle_session_timeout": "sessions end: tests/faults/test_hostile_timeouts.py",
    "idle_in_transaction_session_timeout": "sessions end: tests/faults/test_hostile_timeouts.py",
    "transaction_isolation": "of a transaction, not of a role",
    "transaction_read_only": "of a transaction, not of a role",
    "transaction_deferrable": "of a transaction, not of a role",
    "role": "sessions are those of another: tests/security/test_matrix.py",
    "session_authorization": "not for a role or a database",
    "seed": "not for a role or a database",
    "local_preload_libraries": "no session begins without the library",
    "session_preload_libraries": "no session begins without the library",
    "dynamic_library_path": "no procedural language without it",
    "output_plugin_libraries": "of logical decoding, which is not used",
    "extension_control_path": "what extensions there are is not this library's business",
    "jit_provider": "not for a role or a database",
    "default_table_access_method": "there is but one in most servers",
    "debug_discard_caches": "each statement takes a minute",
    "zero_damaged_pages": "for pages that are damaged",
    "ignore_checksum_failure": "for pages that are damaged",
    "ignore_invalid_pages": "for pages that are damaged",
    "ignore_system_indexes": "for indexes that are damaged; each statement takes long",
    "post_auth_delay": "each session begins so much later",
    "trace_sort": "the server's log is not read",
    "debug_logical_replication_streaming": "of publications: tests/faults/test_moves.py",
    "log_min_messages": "the server's log would have gigabytes",
    "temp_file_limit": "queries that write to disk fail",
}
#: Values of those that are text: there is no range to take them from.
TEXT = {
    "DateStyle": ("German, DMY", "SQL, MDY"),
    "TimeZone": ("Asia/Kathmandu", "America/St_Johns"),
    "timezone_abbreviations": ("Australia", "India"),
    "application_name": ("'", "%s \\"),
    "search_path": ("", "nowhere, public"),
    "client_encoding": ("LATIN1", "SQL_ASCII"),
    "default_tablespace": ("pg_default", ""),
    "temp_tablespaces": ("pg_default", ""),
    "default_text_search_config": ("pg_catalog.simple", "pg_catalog.german"),
    "lc_messages": ("C", "POSIX"),
    "lc_monetary": ("C", "POSIX"),
    "lc_numeric": ("C", "POSIX"),
    "lc_time": ("C", "POSIX"),
    "plpgsql.extra_errors": ("all", "shadowed_variables"),
    "plpgsql.extra_warnings": ("all", "too_many_rows"),
    "restrict_nonsystem_relation_kind": ("view, foreign-table", "foreign-table"),
    "createrole_self_grant": ("set, inherit", "set"),
    "backtrace_functions": ("", "exec_stmt"),
    "wal_consistency_checking": ("", "heap"),
}
#: The most that is taken of a number: more, and a test takes for ever, or the machine's memory.
MOST = {
    "commit_delay": "500",
    "temp_buffers": "1024",
    "work_mem": "65536",
    "maintenance_work_mem": "1048576",
    "logical_decoding_work_mem": "65536",
    "log_min_duration_sample": "60000",
    "geqo_pool_size": "100",
    "geqo_generations": "100",
    "geqo_effort": "2",
    "max_stack_depth": "2048",
    "autovacuum_work_mem": "65536",
}
#: The least that is taken of a number, likewise.
LEAST = {"client_connection_check_interval": "10", "tcp_user_timeout": "5000"}
_SETTINGS = """
    SELECT name, vartype, min_val, max_val, enumvals, boot_val
      FROM pg_settings WHERE context IN ('user', 'superuser') ORDER BY name"""


def hostile(connection: Connection) -> Iterator[tuple[Setting, Setting]]:
    """Two values of each setting that this server lets a role have."""
    connection.execute("LOAD 'plpgsql'")
    for name, kind, least, most, words, usual in connection.execute(_SETTINGS).fetchall():
        if name in LEFT_OUT or name.startswith("auto_explain."):
            continue
        if kind == "bool":
            values: tuple[str, ...] = ("on", "off")
        elif kind == "enum":
            others = [word for word in words if word not in (usual, "debug5", "remote_apply")]
            values = (others[0], others[-1]) if others else ()
        elif kind in ("integer", "real"):
            values = (LEAST.get(name, least), MOST.get(name, most))
        else:
            assert name in TEXT, (
                f"setting {name} is text: say in TEXT with which values it is tried"
            )
            values = TEXT[name]
        if values:
            yield Setting(name, values[0]), Setting(name, values[-1])


def put(connection: Connection, database: str, settings: Iterable[Setting]) -> list[Setting]:
    """Give a database settings, in place of those it has; returns those it would not take."""
    connection.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(sql.Identifier(database)))
    refused = []
    for setting in settings:
        name = sql.SQL(".").join(map(sql.Identifier, setting.name.split(".")))
        value = sql.Literal(setting.value)
        if setting.name in ("search_path", "temp_tablespaces", "DateStyle"):  # lists
            value = sql.SQL(", ").join(map(sql.Literal, setting.value.split(", ")))
        alter = sql.SQL("ALTER DATABASE {} SET {} = {}").format(
            sql.Identifier(database), name, value
        )
        try:
            connection.execute(alter)
        except psycopg.Error:
            refused.append(setting)
    return refused
