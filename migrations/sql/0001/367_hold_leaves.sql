CREATE FUNCTION durable_notify.hold_leaves() RETURNS boolean
LANGUAGE plpgsql AS $function$
BEGIN
    -- Take the lock under which leaves of the log are made, repacked and dropped, until the transaction ends;
    -- false: another session does that, or removes. Then it is for another time.
    --
    -- What is in the log stays as it is: replays need not wait, however long this takes.
    LOCK TABLE durable_notify.removing IN SHARE UPDATE EXCLUSIVE MODE NOWAIT;
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$function$;
