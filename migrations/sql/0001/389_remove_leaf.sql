CREATE FUNCTION durable_notify.remove_leaf() RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '40ms' SET jit = off
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    part record;
    messages bigint;
    sealed bigint := durable_notify.sealed_below();
BEGIN
    -- Empty a leaf of the log of which every message may go; returns how many there were, at least 1; 0: there
    -- is none, or its lock cannot be had now. Commit at once: readers of the whole log wait meanwhile.
    --
    -- By TRUNCATE, which gives the disk space back. Nothing can appear in a closed leaf, and hold_removing()
    -- keeps anything from coming again: what may go before the lock may go under it. That is looked at
    -- once more all the same: outbox_default is not closed.
    IF NOT durable_notify.hold_removing() THEN
        RETURN 0;
    END IF;
    -- Trap: commit would wait for a synchronous standby with the lock held.
    PERFORM pg_catalog.set_config('synchronous_commit', 'local', true);
    FOR part IN
        SELECT l.leaf FROM durable_notify.leaves() l WHERE l.next_id <= sealed
         UNION ALL SELECT 'durable_notify.outbox_default'::regclass
    LOOP
        CONTINUE WHEN pg_catalog.pg_relation_size(part.leaf) = 0 OR NOT durable_notify.leaf_goes(part.leaf);
        EXECUTE pg_catalog.format('SELECT pg_catalog.count(*) FROM %s', part.leaf) INTO messages;
        BEGIN
            EXECUTE pg_catalog.format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', part.leaf);
            IF NOT EXISTS (SELECT FROM durable_notify.topics_of_leaf(part.leaf) t WHERE t.last_id >= sealed) THEN
                EXECUTE pg_catalog.format('TRUNCATE %s', part.leaf);
                RETURN GREATEST(messages, 1);
            END IF;
        EXCEPTION WHEN lock_not_available THEN
            CONTINUE;
        END;
    END LOOP;
    RETURN 0;
END
$function$;
