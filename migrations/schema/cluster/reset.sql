CREATE FUNCTION durable_notify._reset_maintenance() RETURNS void
LANGUAGE plpgsql AS $function$
DECLARE
    next_id bigint := (SELECT q.last_value + q.is_called::integer FROM durable_notify.outbox_id_seq q);
    partition regclass;
BEGIN
    -- Restart maintenance after the outbox was carried over, or truncated. reanchor() calls this while
    -- no other session uses the outbox. Ids that were drawn there and not carried over are drawn here
    -- again. Nothing may be recorded about them, and no partition closed for them: what is published
    -- there would be refused, or delivered past transactions that are still open.
    DELETE FROM durable_notify.watermark;
    DELETE FROM durable_notify.unwanted_partition;
    DELETE FROM durable_notify.maintenance;
    DELETE FROM durable_notify.stretch_time;
    UPDATE durable_notify.maintenance_progress p
       SET archived_below = LEAST(p.archived_below, next_id), archiving_below = NULL,
           compacted_below = LEAST(p.compacted_below, next_id), measured_below = LEAST(p.measured_below, next_id),
           removed_id = NULL, removed_xid = NULL;  -- positions of before are refused
    DELETE FROM durable_notify.topic_size e WHERE e.upto_id >= next_id;
    DELETE FROM durable_notify.compacted_key k WHERE k.message_id >= next_id;
    FOR partition IN
        SELECT t.tgrelid::regclass FROM pg_catalog.pg_trigger t
         WHERE t.tgfoid = 'durable_notify._refuse_late_insert()'::regprocedure
    LOOP
        EXECUTE pg_catalog.format('DROP TRIGGER refuse_late_insert ON %s', partition);  -- see _close_partition()
    END LOOP;
END
$function$;
