CREATE FUNCTION durable_notify.publish_with(
    topic text, payload jsonb, key text, headers jsonb, data bytea, deliver_at timestamptz, delay interval,
    expires_at timestamptz, ttl interval, dedup_key text, dedup_window interval
) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    new_id bigint;
    times record;
BEGIN
    -- Publish a message with times or a dedup key: what publish() does but seldom.
    SELECT * INTO STRICT times FROM durable_notify.publish_times(
        publish_with.deliver_at, publish_with.delay, publish_with.expires_at, publish_with.ttl);
    IF dedup_key IS NOT NULL THEN
        new_id := durable_notify.dedup_id(topic, dedup_key, dedup_window);
        IF new_id IS NOT NULL THEN
            RETURN new_id;
        END IF;
    END IF;
    INSERT INTO durable_notify.outbox (topic, key, payload, data, headers, deliver_at, expires_at)
    VALUES (publish_with.topic, publish_with.key, publish_with.payload, publish_with.data, publish_with.headers,
            times.deliver_at, times.expires_at)
    RETURNING id INTO new_id;
    IF dedup_key IS NOT NULL THEN
        UPDATE durable_notify.dedup d SET message_id = new_id
         WHERE d.topic = publish_with.topic AND d.dedup_key = publish_with.dedup_key;
    END IF;
    RETURN new_id;
END
$function$;
