CREATE FUNCTION durable_notify._delete_lease(token bigint) RETURNS bigint
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    recorded bigint;
BEGIN
    -- Delete a lease and what was recorded about it; returns how many messages were recorded as
    -- settled.
    --
    -- Its row in lease_deadline is left to the next claim. Trap: to delete it here fails in a
    -- REPEATABLE READ transaction in which the lease was extended.
    DELETE FROM durable_notify.lease l WHERE l.token = _delete_lease.token;
    DELETE FROM durable_notify.settlement t WHERE t.token = _delete_lease.token;
    GET DIAGNOSTICS recorded = ROW_COUNT;
    RETURN recorded;
END
$function$;

CREATE FUNCTION durable_notify._raise_lease_lost(token bigint) RETURNS void
LANGUAGE plpgsql AS $function$
BEGIN
    -- Refuse to settle a lease that is not held any more.
    RAISE EXCEPTION 'lease % was superseded: its messages go, or went, to another consumer', token
        USING ERRCODE = 'DN001', HINT = 'Roll back what was done for these messages.';
END
$function$;

CREATE FUNCTION durable_notify._raise_already_settled(token bigint) RETURNS void
LANGUAGE plpgsql AS $function$
BEGIN
    -- Refuse to settle a message twice.
    RAISE EXCEPTION 'a message of lease % was already settled', token
        USING ERRCODE = 'DN002', HINT = 'Settle each message of a lease once.';
END
$function$;
