CREATE FUNCTION durable_notify.bury(
    subscription_id integer, message_id bigint, attempt integer, reason text, error jsonb DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
BEGIN
    -- Keep a message as a dead letter of its group, whole. What dies again replaces what it was.
    INSERT INTO durable_notify.dead_letter
           (subscription_id, message_id, topic, key, payload, data, headers, published_at, attempt, reason, error)
    SELECT s.id, o.id, o.topic, o.key, o.payload, o.data, o.headers, o.created_at, bury.attempt, bury.reason, bury.error
      FROM durable_notify.subscription s
     CROSS JOIN LATERAL durable_notify.message_of(s.topic, bury.message_id, bury.message_id, bury.message_id) AS o
     WHERE s.id = bury.subscription_id
    ON CONFLICT (subscription_id, message_id) DO UPDATE
       SET attempt = EXCLUDED.attempt, reason = EXCLUDED.reason, error = EXCLUDED.error, dead_at = EXCLUDED.dead_at;
END
$function$;
