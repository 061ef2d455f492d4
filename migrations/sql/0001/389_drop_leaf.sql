CREATE FUNCTION durable_notify.drop_leaf() RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '40ms'
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    part record;
BEGIN
    -- Drop a leaf that is empty and gets no more messages; returns 1, or 0: there is none, or not now. It
    -- needs a moment in which nobody has a lock on the log; until then empty leaves do no harm.
    IF NOT durable_notify.hold_removing() THEN
        RETURN 0;
    END IF;
    PERFORM pg_catalog.set_config('synchronous_commit', 'local', true);  -- see remove_leaf()
    FOR part IN
        SELECT l.leaf, l.next_id FROM durable_notify.leaves() l
         WHERE l.next_id <= (SELECT y.closed_below FROM durable_notify.log_layout y)
    LOOP
        CONTINUE WHEN pg_catalog.pg_relation_size(part.leaf) > 0;
        PERFORM durable_notify.lock_log_and(part.leaf);
        EXECUTE pg_catalog.format('ALTER TABLE durable_notify.outbox DETACH PARTITION %s', part.leaf);
        EXECUTE pg_catalog.format('DROP TABLE %s', part.leaf);
        RETURN 1;
    END LOOP;
    RETURN 0;
EXCEPTION WHEN lock_not_available THEN
    RETURN 0;
END
$function$;
