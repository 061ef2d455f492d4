CREATE FUNCTION durable_notify.raise_settled(token bigint) RETURNS void
LANGUAGE plpgsql AS $function$
BEGIN
    -- Refuse to settle a message twice.
    RAISE EXCEPTION 'a message of lease % was already settled', token
        USING ERRCODE = 'DN002', HINT = 'Settle each message of a lease once.';
END
$function$;
