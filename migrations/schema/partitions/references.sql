CREATE FUNCTION durable_notify._lock_partitions() RETURNS boolean
LANGUAGE plpgsql AS $function$
BEGIN
    -- Take the lock under which leaves of the log are made, repacked and dropped, until the transaction ends;
    -- false: another session does that, or removes. Then it is for another time.
    --
    -- What is in the log stays as it is: replays need not wait, however long this takes.
    LOCK TABLE durable_notify.lock_removals IN SHARE UPDATE EXCLUSIVE MODE NOWAIT;
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$function$;

CREATE FUNCTION durable_notify._is_referenced(leaf regclass) RETURNS boolean
LANGUAGE sql STABLE AS $function$
    -- Whether a foreign key of another table leads to a leaf, or to the whole log: PostgreSQL refuses to empty
    -- it by TRUNCATE then, or to put another in its place. Row by row messages go, as the key says.
    SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint k
                    WHERE k.contype = 'f' AND k.confrelid IN (leaf, 'durable_notify.outbox'::regclass))
$function$;

CREATE FUNCTION durable_notify._older_snapshots(since xid8) RETURNS TABLE (pid integer, what text, started_at timestamptz)
LANGUAGE plpgsql VOLATILE AS $function$
#variable_conflict use_column
BEGIN
    -- Who may read this database with a snapshot that does not see a transaction, which has committed: a statement
    -- under way, a REPEATABLE READ transaction, a backup, a standby that gives feedback.
    --
    -- Such a snapshot holds back the horizon of its process to the transaction or further. One that was imported
    -- does from before its exporter may end: where none is found, none can be any more. A younger snapshot is
    -- found, too, while a transaction older than both is running. VACUUM reads nothing for others; ANALYZE may be amid
    -- a transaction that does.
    -- Trap: of sessions of other roles the owner may see no more than this, their kind and state for example not.
    PERFORM pg_catalog.pg_stat_clear_snapshot();  -- pg_stat_activity is read once a transaction
    RETURN QUERY
    SELECT h.pid, h.what, h.started_at
      FROM (SELECT a.pid, COALESCE(NULLIF(a.application_name, ''), a.backend_type, 'a session of another role') AS what, a.xact_start AS started_at, a.backend_xmin
              FROM pg_catalog.pg_stat_activity a
             WHERE a.pid <> pg_catalog.pg_backend_pid()
               AND (a.datname = pg_catalog.current_database() OR a.datname IS NULL)  -- who sends to a standby has none
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_vacuum v WHERE v.pid = a.pid)
             UNION ALL
            SELECT s.active_pid, pg_catalog.format('replication slot %s', s.slot_name), NULL, s.xmin
              FROM pg_catalog.pg_replication_slots s) AS h
     -- An xid is the last 32 bits of an xid8.
     WHERE ((since::text::bigint - h.backend_xmin::text::bigint) & 4294967295) < 2147483648;
END
$function$;
