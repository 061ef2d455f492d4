CREATE FUNCTION durable_notify.lock_log_and(leaf regclass) RETURNS void
LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    -- Lock the log against everybody, and what taking a leaf out of it locks, too; waits once, for at most the
    -- lock_timeout in force.
    --
    -- Trap: without ONLY all leaves are locked, one after the other, and VACUUM of any of them, which has no
    -- lock on the log, would be waited for with the log locked.
    LOCK TABLE ONLY durable_notify.outbox IN ACCESS EXCLUSIVE MODE;
    EXECUTE pg_catalog.format('LOCK TABLE %s, durable_notify.outbox_default IN ACCESS EXCLUSIVE MODE NOWAIT', leaf);
END
$function$;
