CREATE FUNCTION durable_notify.raise_superseded(token bigint) RETURNS void
LANGUAGE plpgsql AS $function$
BEGIN
    -- Refuse to settle what is not held any more.
    RAISE EXCEPTION 'lease % was superseded: its messages go, or went, to another consumer', token
        USING ERRCODE = 'DN001', HINT = 'Roll back what was done for these messages.';
END
$function$;
