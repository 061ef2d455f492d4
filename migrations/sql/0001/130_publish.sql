CREATE FUNCTION durable_notify.publish(
    topic text, payload jsonb, key text DEFAULT NULL, headers jsonb DEFAULT NULL,
    data bytea DEFAULT NULL, deliver_at timestamptz DEFAULT NULL, delay interval DEFAULT NULL,
    expires_at timestamptz DEFAULT NULL, ttl interval DEFAULT NULL,
    dedup_key text DEFAULT NULL, dedup_window interval DEFAULT '1 hour'
) RETURNS bigint
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    new_id bigint;
BEGIN
    -- Publish one message inside the caller's transaction; returns its id.
    --
    -- It reaches every group when, and only when, that transaction commits. A message has either
    -- a JSON payload or bytes (data, with payload NULL). Take your own locks first, then publish:
    -- the order of a key is the order in which ids are drawn.
    -- Groups get it from deliver_at, or after delay, on, and not from expires_at, or ttl after its
    -- delivery, on. Published again with the same dedup_key within dedup_window, the message is
    -- not published: the id of the first is returned.
    IF NOT durable_notify.has_own_rights() THEN
        RETURN durable_notify.publish_granted(
            topic, payload, key, headers, data, deliver_at, delay, expires_at, ttl, dedup_key, dedup_window);
    END IF;
    IF deliver_at IS NULL AND delay IS NULL AND expires_at IS NULL AND ttl IS NULL AND dedup_key IS NULL THEN
        INSERT INTO durable_notify.outbox (topic, key, payload, data, headers)
        VALUES (publish.topic, publish.key, publish.payload, publish.data, publish.headers)
        RETURNING id INTO new_id;
        RETURN new_id;
    END IF;
    RETURN durable_notify.publish_with(
        topic, payload, key, headers, data, deliver_at, delay, expires_at, ttl, dedup_key, dedup_window);
END
$function$;
