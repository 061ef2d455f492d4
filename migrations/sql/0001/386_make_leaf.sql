CREATE FUNCTION durable_notify.make_leaf(first_id bigint, next_id bigint) RETURNS void
LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    leaf text := pg_catalog.format('durable_notify.outbox_%s', first_id);
BEGIN
    -- Make a leaf of the log for a range of ids.
    --
    -- Trap: CREATE TABLE ... PARTITION OF locks the whole log, against readers too. ATTACH does not: it
    -- locks outbox_default, and reads it, unless a constraint of it says that nothing there is in the range.
    -- Trap: and it does not wait for who is publishing. Who began before, and draws an id of the leaf, knows nothing of
    -- it: outbox_default refuses the row. A statement does to its end, and a transaction may. So it is
    -- made while no one publishes: who is at it for long has it wait for another time.
    EXECUTE pg_catalog.format(
        'CREATE TABLE %s (LIKE durable_notify.outbox INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING COMPRESSION)'
        ' WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, vacuum_truncate = off)',
        leaf);
    -- Trap: commit would wait for a synchronous standby with the lock held.
    PERFORM pg_catalog.set_config('synchronous_commit', 'local', true);
    LOCK TABLE ONLY durable_notify.outbox IN SHARE MODE;
    PERFORM pg_catalog.set_config('lock_timeout', '40ms', true);  -- publishers wait for this
    EXECUTE pg_catalog.format(
        'ALTER TABLE durable_notify.outbox ATTACH PARTITION %s FOR VALUES FROM (%s) TO (%s)', leaf, first_id, next_id);
END
$function$;
