CREATE FUNCTION durable_notify.hold_removing() RETURNS boolean
LANGUAGE plpgsql AS $function$
BEGIN
    -- Take the lock under which messages are removed, until the transaction ends; false: somebody else
    -- removes, or has an open transaction that makes messages come again. Then it is for another time.
    LOCK TABLE durable_notify.removing IN SHARE ROW EXCLUSIVE MODE NOWAIT;
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$function$;
