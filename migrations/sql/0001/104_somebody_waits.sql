CREATE FUNCTION durable_notify.somebody_waits(topic text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
BEGIN
    -- Whether somebody waits for a topic ('': for every topic). The caller holds RowExclusiveLock on
    -- the outbox or on ringing by now: that is where who arms after this finds it.
    --
    -- Publishers get in each other's way for a moment; that must not make them ring for each other.
    IF durable_notify.nobody_waits(topic) OR durable_notify.nobody_waits(topic) THEN
        RETURN false;
    END IF;
    IF (CASE WHEN pg_catalog.pg_try_advisory_lock_shared(1685024362, pg_catalog.hashtext(topic))
             THEN pg_catalog.pg_advisory_unlock_shared(1685024362, pg_catalog.hashtext(topic)) ELSE false END) THEN
        RETURN true;
    END IF;
    -- Not even in shared mode: another publisher holds it now, and then nobody waits, since the modes
    -- exclude each other. Trap: or a stranger queues for it behind those who wait: a try fails then,
    -- too. Whether one waits stands in pg_locks, which takes too long to look at each time.
    RETURN EXISTS (
        SELECT FROM pg_catalog.pg_locks l
         WHERE l.locktype = 'advisory' AND l.classid = 1685024362
           AND l.objid = (pg_catalog.hashtext(topic)::bigint & 4294967295)::oid AND l.objsubid = 2
           AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
           AND l.mode = 'ShareLock' AND l.granted);
END
$function$;
