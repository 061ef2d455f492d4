CREATE FUNCTION durable_notify._lock_removal() RETURNS boolean
LANGUAGE plpgsql AS $function$
BEGIN
    -- Take the lock under which messages are removed, until the transaction ends; false: another
    -- session removes, or has an open transaction that redelivers messages, or this transaction is not
    -- READ COMMITTED. Then try another time.
    --
    -- What it decides by stays true until the commit: a session that redelivers messages, or creates a
    -- group, waits for it in _block_removal(). Do not copy or scan large tables under it: those
    -- sessions wait for 5 seconds at most.
    -- Trap: what is looked at after the lock must be seen as it is then, not as it was before.
    IF pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE WARNING 'messages must be removed in a READ COMMITTED transaction: this one changes nothing'
            USING HINT = 'Begin one with BEGIN ISOLATION LEVEL READ COMMITTED.';
        RETURN false;
    END IF;
    LOCK TABLE durable_notify.lock_removals IN SHARE ROW EXCLUSIVE MODE NOWAIT;
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$function$;

CREATE FUNCTION durable_notify._block_removal() RETURNS void
LANGUAGE sql VOLATILE AS $function$
    -- Have nothing removed from the outbox until this transaction ends: it redelivers messages, or
    -- creates a group. And have unwanted partitions found again afterwards; see _mark_unwanted().
    --
    -- The lock of the row's table makes it true until the commit; see _lock_removal(). Call this before
    -- the group's lock is taken: it may wait here, and the group's claims must not wait for that. Each
    -- session adds a row of its own: it does not wait here for another that does the same.
    INSERT INTO durable_notify.lock_removals DEFAULT VALUES
$function$;
