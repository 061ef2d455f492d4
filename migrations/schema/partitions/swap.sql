CREATE FUNCTION durable_notify._swap_partition(partition regclass, first_id bigint, next_id bigint) RETURNS void
LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    copy text := pg_catalog.format('durable_notify.outbox_%s_copy', first_id);
    missing boolean;
BEGIN
    -- Put the copy of a partition, as _copy_partition() made it, in the partition's place. Or drop the
    -- copy, if the partition no longer exists or has rows that the copy lacks: then it was changed by
    -- hand. See _rewrite_partition().
    --
    -- What was removed from the partition since is removed from the copy first. Only then is the outbox
    -- locked, for as long as it takes to swap the two.
    IF partition IS NULL OR pg_catalog.pg_relation_size(partition) = 0 OR pg_catalog.to_regclass(copy) IS NULL THEN
        EXECUTE pg_catalog.format('DROP TABLE IF EXISTS %s', copy);
        RETURN;
    END IF;
    BEGIN
        PERFORM durable_notify._lock_outbox_exclusive(partition);  -- if it cannot be locked, do not compare
        RAISE division_by_zero;
    EXCEPTION WHEN division_by_zero THEN
        NULL;  -- rolled back, and unlocked
    END;
    EXECUTE pg_catalog.format('LOCK TABLE %s IN SHARE MODE', partition);  -- keep out changes by hand
    EXECUTE pg_catalog.format(
        'DELETE FROM %2$s c WHERE NOT EXISTS ('
        ' SELECT FROM %1$s o WHERE o.topic = c.topic AND o.id = c.id'
        '    AND ROW(o.xid, o.key, o.payload, o.data, o.headers, o.deliver_at, o.expires_at, o.created_at)'
        '        IS NOT DISTINCT FROM ROW(c.xid, c.key, c.payload, c.data, c.headers, c.deliver_at, c.expires_at, c.created_at))',
        partition, copy);
    EXECUTE pg_catalog.format('SELECT (SELECT pg_catalog.count(*) FROM %s) <> (SELECT pg_catalog.count(*) FROM %s)', partition, copy)
       INTO missing;
    IF missing OR durable_notify._is_referenced(partition) THEN
        EXECUTE pg_catalog.format('DROP TABLE %s', copy);
        RETURN;
    END IF;
    PERFORM pg_catalog.set_config('synchronous_commit', 'local', true);  -- see _truncate_partition()
    PERFORM durable_notify._lock_outbox_exclusive(partition);
    EXECUTE pg_catalog.format(
        'ALTER TABLE durable_notify.outbox DETACH PARTITION %2$s;'
        ' DROP TABLE %2$s;'
        ' ALTER TABLE durable_notify.outbox ATTACH PARTITION %1$s FOR VALUES FROM (%3$s) TO (%4$s);'
        ' ALTER TABLE %1$s DROP CONSTRAINT outbox_bounds;'
        ' ALTER TABLE %1$s RENAME TO outbox_%3$s',
        copy, partition, first_id, next_id);
    PERFORM durable_notify._close_partition(pg_catalog.format('durable_notify.outbox_%s', first_id)::regclass);
END
$function$;

CREATE FUNCTION durable_notify._lock_outbox_exclusive(partition regclass) RETURNS void
LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    -- Lock the outbox exclusively, and the other tables that are locked when a partition is detached;
    -- waits once, for at most the lock_timeout in force.
    --
    -- Trap: without ONLY all partitions are locked, one after the other. If VACUUM runs on one, which
    -- needs no lock on the outbox, this would wait for it with the outbox locked.
    LOCK TABLE ONLY durable_notify.outbox IN ACCESS EXCLUSIVE MODE;
    EXECUTE pg_catalog.format('LOCK TABLE %s, durable_notify.outbox_default IN ACCESS EXCLUSIVE MODE NOWAIT', partition);
END
$function$;
