CREATE FUNCTION durable_notify.hold_functions() RETURNS void
LANGUAGE plpgsql AS $function$
BEGIN
    -- Take the lock under which functions of the schema are written anew, and granted, until the transaction
    -- ends; waits for at most the lock_timeout in force.
    --
    -- Trap: both write the function's row in the catalog. Of two that do so at the same time PostgreSQL lets
    -- the second wait, without lock_timeout, and then fail: "tuple concurrently updated".
    LOCK TABLE durable_notify.access IN SHARE ROW EXCLUSIVE MODE;
END
$function$;
