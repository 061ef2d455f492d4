CREATE FUNCTION durable_notify._truncate_partition() RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '40ms' SET jit = off
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    partition record;
    messages bigint;
BEGIN
    -- Empty a leaf of the log that _mark_unwanted() has noted; returns how many messages there were, at least 1; 0:
    -- there is none, or not now. Commit at once: readers of the whole log wait meanwhile.
    --
    -- By TRUNCATE, which gives the disk space back. Trap: it takes the messages from older snapshots, too. A
    -- backup among them would have positions that want messages, and not the messages. So all who could have
    -- such a snapshot are waited for, and what was noted in this transaction is for a later one.
    -- Under _lock_removal() no message is redelivered; who did that since the leaf was noted has left a row in
    -- removing. Nothing appears in a closed leaf. outbox_default is not closed: it is looked at under its lock.
    -- Counted is before that: a leaf may be large, and who redelivers waits for that lock.
    IF NOT durable_notify._lock_partitions() THEN
        RETURN 0;
    END IF;
    -- Trap: commit would wait for a synchronous standby with the lock held.
    PERFORM pg_catalog.set_config('synchronous_commit', 'local', true);
    FOR partition IN
        SELECT u.first_id, u.seen, u.since, COALESCE(l.leaf, 'durable_notify.outbox_default'::regclass) AS leaf
          FROM durable_notify.unwanted_partition u LEFT JOIN durable_notify.partitions() l ON l.first_id = u.first_id
         WHERE (l.first_id IS NOT NULL OR u.first_id = 0) AND u.since <> pg_catalog.pg_current_xact_id()
         ORDER BY u.first_id = 0, u.first_id
    LOOP
        CONTINUE WHEN durable_notify._is_referenced(partition.leaf) OR EXISTS (SELECT FROM durable_notify._older_snapshots(partition.since));
        BEGIN
            EXECUTE pg_catalog.format('SELECT pg_catalog.count(*) FROM %s', partition.leaf) INTO messages;
            IF NOT durable_notify._lock_removal() THEN
                RETURN 0;
            END IF;
            -- Trap: not in one expression with the lock. It would see what there was before that.
            IF EXISTS (SELECT FROM durable_notify.lock_removals) THEN
                RETURN 0;
            END IF;
            EXECUTE pg_catalog.format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', partition.leaf);
            PERFORM durable_notify.log_id();  -- after it: what replication brings comes to closed leaves, too
            CONTINUE WHEN partition.first_id = 0 AND durable_notify._has_appeared(partition.leaf, partition.seen);
            EXECUTE pg_catalog.format('TRUNCATE %s', partition.leaf);
            DELETE FROM durable_notify.unwanted_partition u WHERE u.first_id = partition.first_id;
            RETURN GREATEST(messages, 1);
        EXCEPTION WHEN lock_not_available THEN
            CONTINUE;
        END;
    END LOOP;
    RETURN 0;
END
$function$;
