CREATE FUNCTION durable_notify._delivery_times(
    INOUT deliver_at timestamptz, delay interval, INOUT expires_at timestamptz, ttl interval
)
LANGUAGE plpgsql
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
BEGIN
    -- When a message is delivered and expires, given as times or as intervals from now by the
    -- database's clock; a ttl counts from its delivery.
    IF deliver_at IS NOT NULL AND delay IS NOT NULL OR expires_at IS NOT NULL AND ttl IS NOT NULL
       OR delay < '0' OR ttl <= '0' THEN
        RAISE EXCEPTION 'a message has a deliver_at or a delay of 0 or more, and an expires_at or a positive ttl'
            USING ERRCODE = '22023', HINT = 'Nothing was published.';
    END IF;
    deliver_at := COALESCE(deliver_at, pg_catalog.clock_timestamp() + delay);
    expires_at := COALESCE(expires_at, COALESCE(deliver_at, pg_catalog.clock_timestamp()) + ttl);
    IF expires_at <= deliver_at THEN
        RAISE EXCEPTION 'a message would expire at %, before its delivery at %', expires_at, deliver_at
            USING ERRCODE = '22023', HINT = 'Nothing was published.';
    END IF;
END
$function$;
