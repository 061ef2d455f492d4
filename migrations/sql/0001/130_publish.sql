CREATE FUNCTION durable_notify.publish(
    topic text, payload jsonb, key text DEFAULT NULL, headers jsonb DEFAULT NULL,
    data bytea DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    message_id bigint;
BEGIN
    -- Publish one message inside the caller's transaction; returns its id.
    --
    -- It reaches every group when, and only when, that transaction commits. A message has either
    -- a JSON payload or bytes (data, with payload NULL). Take your own locks first, then publish:
    -- the order of a key is the order in which ids are drawn.
    INSERT INTO durable_notify.outbox (topic, key, payload, data, headers)
    VALUES (publish.topic, publish.key, publish.payload, publish.data, publish.headers)
    RETURNING id INTO message_id;
    RETURN message_id;
END
$function$;
