CREATE FUNCTION durable_notify.drop_lease(token bigint) RETURNS bigint
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    noted bigint;
BEGIN
    -- Remove a lease and what was noted about it; returns how many messages were noted as settled.
    --
    -- Its heartbeat is left to the next claim. Trap: to delete it here fails in a REPEATABLE READ
    -- transaction in which the lease was extended.
    DELETE FROM durable_notify.lease l WHERE l.token = drop_lease.token;
    DELETE FROM durable_notify.settlement t WHERE t.token = drop_lease.token;
    GET DIAGNOSTICS noted = ROW_COUNT;
    RETURN noted;
END
$function$;
