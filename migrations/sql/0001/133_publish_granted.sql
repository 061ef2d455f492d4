CREATE FUNCTION durable_notify.publish_granted(
    topic text, payload jsonb, key text, headers jsonb, data bytea, deliver_at timestamptz, delay interval,
    expires_at timestamptz, ttl interval, dedup_key text, dedup_window interval
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, durable_notify, pg_temp SET standard_conforming_strings = on AS $function$
#variable_conflict use_column
DECLARE
    new_id bigint;
BEGIN
    -- publish() for whom the table access allows it; it calls this by itself. Unlike the other twins this
    -- does not call it in turn: publish() would be planned anew each time, for another search_path.
    PERFORM durable_notify.require('publish', ARRAY[topic]);
    IF deliver_at IS NULL AND delay IS NULL AND expires_at IS NULL AND ttl IS NULL AND dedup_key IS NULL THEN
        INSERT INTO durable_notify.outbox (topic, key, payload, data, headers)
        VALUES (publish_granted.topic, publish_granted.key, publish_granted.payload, publish_granted.data,
                publish_granted.headers)
        RETURNING id INTO new_id;
        RETURN new_id;
    END IF;
    RETURN durable_notify.publish_with(
        topic, payload, key, headers, data, deliver_at, delay, expires_at, ttl, dedup_key, dedup_window);
END
$function$;
