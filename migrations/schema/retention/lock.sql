CREATE FUNCTION durable_notify._lock_removal() RETURNS boolean
LANGUAGE plpgsql AS $function$
BEGIN
    -- Take the lock under which messages are removed, until the transaction ends; false: somebody else
    -- removes, or has an open transaction that makes messages come again, or this one is not READ COMMITTED.
    -- Then it is for another time.
    --
    -- What it decides by stays true until the commit: who redelivers messages, or begins a group, waits for it
    -- in _block_removal(). Nothing is copied under it, or looked through as a whole: they wait for 5 seconds at most.
    -- Trap: what is looked at after the lock must be seen as it is then, not as it was before.
    IF pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE WARNING 'messages are removed in a READ COMMITTED transaction: this one changes nothing'
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
    -- Have nothing go from the log until this transaction ends: it redelivers messages, or begins a group. And
    -- have what was found of leaves that are to go be found once more after it; see _mark_unwanted().
    --
    -- The lock of the row's table makes it true until the commit; see _lock_removal(). Call it before the group's
    -- lock is taken: it may wait here, and the group's claims are not to wait for that. A row for each: no one
    -- waits here for another who does the same.
    INSERT INTO durable_notify.lock_removals DEFAULT VALUES
$function$;
