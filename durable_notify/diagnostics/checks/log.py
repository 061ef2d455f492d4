"""The schema: its version, what the role may do, and how the outbox is built."""

from __future__ import annotations

from collections.abc import Iterator

from ... import schema
from ...errors import SchemaError, SchemaMissing, SchemaTooNew, SchemaTooOld
from ..context import CheckContext
from ..findings import Finding, finding

_KINDS: dict[type[SchemaError], str] = {
    SchemaMissing: "schema-missing",
    SchemaTooOld: "schema-too-old",
    SchemaTooNew: "schema-too-new",
}


def schema_version(context: CheckContext) -> Iterator[Finding]:
    """The version that this package works with."""
    try:
        schema.check(context.connection)
    except SchemaError as error:
        name = _KINDS.get(type(error), "schema-missing")
        yield finding(name, str(error).split(". ")[0].split(" Run ")[0])


def rights(context: CheckContext) -> Iterator[Finding]:
    """What the role may do; the owner may do everything."""
    context.role, context.owns, context.sees_sessions = context.row(
        """
        SELECT CURRENT_USER::text,
               (SELECT has_table_privilege(c.oid, 'TRUNCATE') FROM pg_class c
                  JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE n.nspname = 'durable_notify' AND c.relname = 'outbox'),
               pg_has_role('pg_read_all_stats', 'USAGE')
        """
    )
    if context.owns is None:
        yield finding("schema-missing", "This database has no durable_notify schema")
    if context.owns is not False:
        return
    allowed = [word for (word,) in context.rows(
        """
        SELECT w.word FROM (VALUES ('_publish_granted', 'publish'), ('_claim_granted', 'consume'),
                                   ('_read_granted', 'read'), ('_status_granted', 'observe'),
                                   ('_no_waiter', 'insert')) AS w (name, word)
         WHERE EXISTS (SELECT FROM pg_proc p
                         JOIN pg_namespace n ON n.oid = p.pronamespace
                        WHERE n.nspname = 'durable_notify' AND p.proname = w.name
                          AND has_function_privilege(p.oid, 'EXECUTE'))
        """
    )]  # fmt: skip
    if not allowed:
        yield finding("no-rights", f"role {context.role} was granted nothing", role=context.role)
    else:
        yield Finding(
            "rights", "ok", f"role {context.role} may {', '.join(allowed)}",
            data={"role": context.role, "allowed": allowed},
        )  # fmt: skip


def build(context: CheckContext) -> Iterator[Finding]:
    """Columns, ids, triggers and indexes of the outbox are as the guarantees need them."""
    tables = _tables(context)
    yield from _identity(context, tables)
    yield from _triggers(context, tables)
    yield from _indexes(context, tables)


def _tables(context: CheckContext) -> list[int]:
    """Return the outbox and its partitions, by oid."""
    rows = context.rows(
        """
        SELECT l.oid FROM (
            SELECT c.oid, 0 AS ord FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = 'durable_notify' AND c.relname = 'outbox'
            UNION ALL
            SELECT t.relid::oid, t.level FROM pg_class c
              JOIN pg_namespace n ON n.oid = c.relnamespace
             CROSS JOIN LATERAL pg_partition_tree(c.oid) t
             WHERE n.nspname = 'durable_notify' AND c.relname = 'outbox' AND t.level > 0) l
         ORDER BY l.ord, l.oid
        """
    )
    return [oid for (oid,) in rows]


def _identity(context: CheckContext, tables: list[int]) -> Iterator[Finding]:
    identity, last, cache, sequence = context.row(
        """
        SELECT id.attidentity::text,
               (SELECT a.attname::text FROM pg_attribute a
                 WHERE a.attrelid = id.attrelid AND NOT a.attisdropped
                 ORDER BY a.attnum DESC LIMIT 1),
               s.seqcache, s.seqrelid::regclass::text
          FROM pg_attribute id
          LEFT JOIN (pg_sequence s JOIN pg_depend d ON d.objid = s.seqrelid
                     AND d.classid = 'pg_class'::regclass AND d.deptype IN ('i', 'a'))
               ON d.refobjid = id.attrelid AND d.refobjsubid = id.attnum
         WHERE id.attrelid = %s AND id.attname = 'id'
        """,
        tables[0],
    )
    if identity != "a":
        yield finding("id-not-always", "ids of the outbox are not GENERATED ALWAYS")
    if last != "id":
        yield finding("id-not-last", f"column {last} of the outbox comes after id", column=last)
    if cache is not None and cache != 1:
        yield finding(
            "id-cache", f"the sequence of ids has CACHE {cache}", sequence=sequence, cache=cache
        )


def _triggers(context: CheckContext, tables: list[int]) -> Iterator[Finding]:
    wrong = context.rows(
        """
        SELECT l.oid::regclass::text, t.tgenabled::text, l.oid
          FROM unnest(%s::oid[]) WITH ORDINALITY AS l (oid, ord)
          LEFT JOIN pg_trigger t ON t.tgrelid = l.oid AND t.tgname = 'outbox_after_insert'
         WHERE t.tgenabled IS DISTINCT FROM 'A' ORDER BY l.ord
        """,
        tables,
    )
    if wrong and wrong[0][2] == tables[0]:
        del wrong[1:]  # the statement for the outbox repairs its partitions too
    for table, how, _ in wrong:
        state = {"D": "is disabled", "O": "is not ENABLE ALWAYS", "R": "is not ENABLE ALWAYS"}
        what = f"the trigger outbox_after_insert of {table} {state.get(how, 'is missing')}"
        yield finding("trigger-not-always", what, table=table, enabled=how)


def _indexes(context: CheckContext, tables: list[int]) -> Iterator[Finding]:
    for index, table in context.rows(
        """
        SELECT i.indexrelid::regclass::text, i.indrelid::regclass::text FROM pg_index i
          JOIN pg_class c ON c.oid = i.indrelid
          JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = 'durable_notify' AND NOT (i.indisvalid AND i.indisready) ORDER BY 1
        """
    ):
        yield finding("index-invalid", f"index {index} of {table} is not valid", index=index)
    present = {names for (names,) in context.rows(
        """
        SELECT string_agg(a.attname, ', ' ORDER BY k.ord) FROM pg_index i
         CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (number, ord)
          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
         WHERE i.indrelid = %s GROUP BY i.indexrelid
        """,
        tables[0],
    )}  # fmt: skip
    for names in ("topic, id", "topic, xid, id"):
        if names not in present:
            yield finding(
                "index-invalid", f"the outbox has no index on ({names})", index=f"on ({names})"
            )


def unlogged(context: CheckContext) -> Iterator[Finding]:
    """All tables survive a crash."""
    for (table,) in context.rows(
        """
        SELECT c.oid::regclass::text FROM pg_class c
          JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = 'durable_notify' AND c.relkind IN ('r', 'p') AND c.relpersistence = 'u'
         ORDER BY 1
        """
    ):
        yield finding("unlogged", f"{table} is unlogged", table=table)


def cluster(context: CheckContext) -> Iterator[Finding]:
    """The outbox is in the cluster where it was written."""
    here, rows = context.row(
        "SELECT count(*) = 2 AND bool_and(a.xmin = a.xid), count(*) "
        "FROM durable_notify.cluster_identity a"
    )
    if not here:
        what = "the messages were restored from, or replicated by, another cluster"
        if not rows:
            what = (
                "the table durable_notify.cluster_identity is empty, as after a TRUNCATE of all "
                "tables"
            )
        yield finding("restored-elsewhere", what)
