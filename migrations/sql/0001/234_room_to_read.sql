CREATE FUNCTION durable_notify.room_to_read(
    subscription_id integer, options durable_notify.consumer_group, wanted integer
) RETURNS integer
LANGUAGE plpgsql STABLE AS $function$
#variable_conflict use_column
DECLARE
    parked bigint;
BEGIN
    -- How many messages may be read from the log. A strict group does not pass what waits; and how
    -- many may be parked is bounded: past it the group waits for a key rather than run ahead.
    IF options.order_by = 'none' OR wanted <= 0 THEN
        RETURN wanted;
    END IF;
    parked := (SELECT pg_catalog.count(*) FROM (
        SELECT FROM durable_notify.deferred d
         WHERE d.subscription_id = room_to_read.subscription_id AND d.key IS NOT NULL
         LIMIT options.park_limit) AS waiting);
    IF options.order_by = 'strict' AND parked > 0 THEN
        RETURN 0;
    END IF;
    RETURN LEAST(wanted, options.park_limit - parked);
END
$function$;
