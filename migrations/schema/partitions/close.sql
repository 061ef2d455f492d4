CREATE FUNCTION durable_notify._close_partitions() RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '40ms'
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    closed bigint;
    partition record;
    further bigint;
    own bigint;
    since bigint;
BEGIN
    -- Record which partitions get no more rows, as _advance_watermark() has found. Readers skip them if
    -- they need not look there; see _closed_below(). Returns how far partitions are closed. READ
    -- COMMITTED only.
    --
    -- From here on a closed partition refuses rows, whether their ids were given or drawn long ago; see
    -- _refuse_late_insert(). CREATE TRIGGER takes a lock that keeps inserts out and waits for those in
    -- progress: every row that exists was decided before.
    -- It closes nothing if a session may keep low ids for later: a message published with one must be
    -- found.
    closed := COALESCE((SELECT l.closed_below FROM durable_notify.partition_settings l), 0);
    IF EXISTS (SELECT FROM pg_catalog.pg_sequence q WHERE q.seqrelid = 'durable_notify.outbox_id_seq'::regclass
                  AND (q.seqcache > 1 OR q.seqincrement < 1 OR q.seqcycle)) THEN
        RETURN closed;
    END IF;
    FOR partition IN
        SELECT p.name, p.next_id FROM durable_notify.partitions() p
         WHERE p.next_id <= durable_notify._watermark() AND p.next_id > closed ORDER BY p.next_id
    LOOP
        BEGIN
            PERFORM durable_notify._lock_functions();  -- _set_closed_below() rewrites a function
            PERFORM durable_notify._close_partition(partition.name);
        EXCEPTION WHEN lock_not_available THEN
            EXIT;  -- a publisher there, or a grant, holds the lock: another time
        END;
        further := partition.next_id;
    END LOOP;
    IF further IS NOT NULL THEN
        closed := further;
        -- Trap: an xid drawn after the look of _advance_watermark() proves that a snapshot was taken
        -- after it. This transaction's own xid may be older, so take that of a subtransaction.
        BEGIN
            INSERT INTO durable_notify.partition_settings (closed_below) VALUES (closed)
            ON CONFLICT ON CONSTRAINT partition_settings_pkey DO UPDATE SET closed_below = EXCLUDED.closed_below;
            SELECT l.xmin::text::bigint INTO STRICT since FROM durable_notify.partition_settings l;
        EXCEPTION WHEN division_by_zero THEN
            RAISE;  -- never; the clause makes the block a transaction
        END;
        own := pg_catalog.pg_current_xact_id()::text::bigint;
        since := own + ((since - own) & 4294967295);  -- an xid is the last 32 bits of an xid8
        PERFORM durable_notify._set_closed_below(closed, since::text::xid8);
    END IF;
    RETURN COALESCE((SELECT l.closed_below FROM durable_notify.partition_settings l), 0);
END
$function$;

CREATE FUNCTION durable_notify._close_partition(partition regclass) RETURNS void
LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    -- Have a partition refuse rows from here on; see _refuse_late_insert().
    EXECUTE pg_catalog.format(
        'CREATE OR REPLACE TRIGGER refuse_late_insert AFTER INSERT ON %1$s FOR EACH ROW EXECUTE FUNCTION durable_notify._refuse_late_insert();'
        ' ALTER TABLE %1$s ENABLE ALWAYS TRIGGER refuse_late_insert', partition);
END
$function$;

CREATE FUNCTION durable_notify._refuse_late_insert() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
BEGIN
    -- Refuse what is inserted into a closed partition: no group looks there for new messages.
    -- _close_partitions() gives a partition this trigger when it closes it, so that it costs publishers
    -- nothing.
    --
    -- Rows that logical replication carries over are let in: no group reads before reanchor(), which
    -- leaves no partition closed.
    -- Trap: such a row's xid may happen to be that of the transaction that brings it.
    IF pg_catalog.current_setting('session_replication_role') = 'replica' THEN
        PERFORM durable_notify._mark_replicated(NEW.id);
    ELSE
        RAISE EXCEPTION 'id % was drawn too long ago: no group looks for new messages there', NEW.id
            USING ERRCODE = '22023', SCHEMA = 'durable_notify', TABLE = 'outbox', COLUMN = 'id',
                  HINT = 'Leave id out of the INSERT, and the sequence durable_notify.outbox_id_seq at CACHE 1. Nothing was published.';
    END IF;
    RETURN NULL;
END
$function$;
