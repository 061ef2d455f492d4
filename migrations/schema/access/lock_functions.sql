CREATE FUNCTION durable_notify._lock_functions() RETURNS void
LANGUAGE plpgsql AS $function$
BEGIN
    -- Take the lock under which functions of the schema are rewritten, and granted, until the
    -- transaction ends; waits for at most the lock_timeout in force.
    --
    -- Trap: both write the function's row in the catalog. If two sessions do so at the same time,
    -- PostgreSQL lets the second wait, without lock_timeout, and then fail: "tuple concurrently
    -- updated".
    LOCK TABLE durable_notify.access IN SHARE ROW EXCLUSIVE MODE;
EXCEPTION WHEN lock_not_available THEN
    RAISE EXCEPTION 'an open transaction changes settings of this schema, or what roles may do'
        USING ERRCODE = '55P03',
              HINT = 'Nothing was changed. Try again when it has ended; pg_stat_activity shows it.';
END
$function$;
