CREATE FUNCTION durable_notify.allowed(options durable_notify.consumer_group, wanted integer) RETURNS integer
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    tokens double precision;
BEGIN
    -- How many messages a group may be handed now by its limits. The caller holds its lock.
    --
    -- The rate is a token bucket that holds a second's worth. What is leased counts as in flight
    -- until it is settled, or its lease has run out.
    IF options.max_in_flight IS NOT NULL THEN
        wanted := LEAST(wanted, options.max_in_flight - (durable_notify.in_flight(options.id)).messages);
    END IF;
    IF options.rate_limit IS NOT NULL THEN
        INSERT INTO durable_notify.allowance AS a (group_id, tokens, at)
        VALUES (options.id, GREATEST(1, options.rate_limit), pg_catalog.clock_timestamp())
        ON CONFLICT (group_id) DO UPDATE
           SET tokens = LEAST(GREATEST(1, options.rate_limit), a.tokens + options.rate_limit
                              * GREATEST(0, EXTRACT(epoch FROM EXCLUDED.at - a.at)::double precision)),
               at = EXCLUDED.at
        RETURNING a.tokens INTO tokens;
        wanted := LEAST(wanted, pg_catalog.floor(tokens)::integer);
    END IF;
    RETURN GREATEST(0, wanted);
END
$function$;
