CREATE FUNCTION durable_notify._outbox_after_truncate() RETURNS trigger
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
BEGIN
    -- Reset after a manual TRUNCATE of the outbox. TRUNCATE ... RESTART IDENTITY has ids drawn again,
    -- below what readers skip as closed, and below what counts as archived or compacted. Closed
    -- partitions take rows again; see _reset_maintenance().
    PERFORM durable_notify._lock_functions();
    PERFORM durable_notify._reset_maintenance();
    UPDATE durable_notify.partition_settings SET closed_below = 0;
    PERFORM durable_notify._set_closed_below(0, '3');
    RETURN NULL;
END
$function$;
