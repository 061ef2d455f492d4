CREATE FUNCTION durable_notify._lock_partitions() RETURNS boolean
LANGUAGE plpgsql AS $function$
BEGIN
    -- Take the lock under which partitions of the outbox are created, rewritten and dropped, until the
    -- transaction ends; false: another session does that, or removes messages. Then try another time.
    --
    -- The content of the outbox stays as it is: replays need not wait, however long this takes.
    LOCK TABLE durable_notify.lock_removals IN SHARE UPDATE EXCLUSIVE MODE NOWAIT;
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$function$;

CREATE FUNCTION durable_notify._is_referenced(partition regclass) RETURNS boolean
LANGUAGE sql STABLE AS $function$
    -- Return whether a foreign key of another table refers to a partition, or to the whole outbox. Then
    -- PostgreSQL refuses to TRUNCATE it, or to put another in its place. Messages are removed row by
    -- row, as the key's action allows.
    SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint k
                    WHERE k.contype = 'f' AND k.confrelid IN (partition, 'durable_notify.outbox'::regclass))
$function$;

CREATE FUNCTION durable_notify._older_snapshots(since xid8) RETURNS TABLE (pid integer, what text, started_at timestamptz)
LANGUAGE plpgsql VOLATILE AS $function$
#variable_conflict use_column
BEGIN
    -- Which sessions may read this database with a snapshot that does not see a transaction that has
    -- committed: a statement in progress, a REPEATABLE READ transaction, a backup, a standby that gives
    -- feedback.
    --
    -- Such a snapshot holds back the xmin horizon of its process to the transaction or further. An
    -- imported snapshot does so from before its exporter may end: if none is found, none can exist any
    -- more. A younger snapshot is found, too, while a transaction older than both is running. VACUUM
    -- reads nothing for others; ANALYZE may run inside a transaction that does.
    -- Trap: of sessions of other roles the owner may see no more than this; for example not their kind
    -- and state.
    PERFORM pg_catalog.pg_stat_clear_snapshot();  -- pg_stat_activity is read once a transaction
    RETURN QUERY
    SELECT h.pid, h.what, h.started_at
      FROM (SELECT a.pid, COALESCE(NULLIF(a.application_name, ''), a.backend_type, 'a session of another role') AS what, a.xact_start AS started_at, a.backend_xmin
              FROM pg_catalog.pg_stat_activity a
             WHERE a.pid <> pg_catalog.pg_backend_pid()
               AND (a.datname = pg_catalog.current_database() OR a.datname IS NULL)  -- a walsender has none
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_vacuum v WHERE v.pid = a.pid)
             UNION ALL
            SELECT s.active_pid, pg_catalog.format('replication slot %s', s.slot_name), NULL, s.xmin
              FROM pg_catalog.pg_replication_slots s) AS h
     -- An xid is the last 32 bits of an xid8.
     WHERE ((since::text::bigint - h.backend_xmin::text::bigint) & 4294967295) < 2147483648;
END
$function$;
