CREATE FUNCTION durable_notify._open_writers(tables regclass[]) RETURNS xid[]
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
    -- The transactions of others that hold RowExclusiveLock on one of some tables, or on a partition of
    -- one, which is all that an insert into a partition holds. The lowest xid of each is its own, the
    -- others belong to its savepoints.
    --
    -- It looks at pg_locks once: PREPARE TRANSACTION between two looks would hide its transaction.
    -- Trap: it transfers its locks one after the other, to a holder without a process that keeps the
    -- second part of the virtual transaction's name; a look in between sees two holders of a part each.
    WITH held AS MATERIALIZED (
        SELECT l.locktype, l.database, l.relation, l.mode, l.granted, l.virtualtransaction, l.pid, l.transactionid
          FROM pg_catalog.pg_locks l),
    meant AS MATERIALIZED (
        SELECT t.oid FROM pg_catalog.unnest(tables) AS t (oid)
         UNION ALL
        SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = ANY (tables)),
    holders AS (
        SELECT h.virtualtransaction, h.pid FROM held h
         WHERE h.locktype = 'relation' AND h.relation IN (SELECT m.oid FROM meant m)
           AND h.mode = 'RowExclusiveLock' AND h.granted
           AND h.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
           AND h.pid IS DISTINCT FROM pg_catalog.pg_backend_pid())
    SELECT COALESCE(pg_catalog.array_agg(x.transactionid ORDER BY x.transactionid::text), '{}')
      FROM (SELECT DISTINCT h.transactionid
              FROM held h JOIN holders w
                ON w.virtualtransaction = h.virtualtransaction AND w.pid IS NOT DISTINCT FROM h.pid
                OR (w.pid IS NULL) <> (h.pid IS NULL)
                   AND pg_catalog.split_part(w.virtualtransaction, '/', 2) = pg_catalog.split_part(h.virtualtransaction, '/', 2)
             WHERE h.locktype = 'transactionid' AND h.mode = 'ExclusiveLock' AND h.granted) AS x
$function$;

CREATE FUNCTION durable_notify._open_publishers() RETURNS xid[]
LANGUAGE sql VOLATILE AS $function$
    -- The transactions of others that are publishing now: an insert holds RowExclusiveLock on the
    -- outbox from before it draws an id until after its commit became visible.
    SELECT durable_notify._open_writers('{durable_notify.outbox}')
$function$;

CALL durable_notify._grantable('_open_writers', '{read,consume}');
