CREATE FUNCTION durable_notify._dead_letter(
    subscription_id integer, message_id bigint, attempt integer, reason text, error jsonb DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
BEGIN
    -- Keep a message as a dead letter of its group, whole. A message that dies again replaces its
    -- earlier row, unless an open transaction has locked that row: a claim must not wait for it.
    DELETE FROM durable_notify.dead_letter d USING (
        SELECT x.seq FROM durable_notify.dead_letter x
         WHERE x.subscription_id = _dead_letter.subscription_id AND x.message_id = _dead_letter.message_id
           FOR UPDATE SKIP LOCKED) AS before
     WHERE d.subscription_id = _dead_letter.subscription_id AND d.message_id = _dead_letter.message_id AND d.seq = before.seq;
    INSERT INTO durable_notify.dead_letter
           (subscription_id, message_id, topic, key, payload, data, headers, published_at, attempt, reason, error)
    SELECT s.id, o.id, o.topic, o.key, o.payload, o.data, o.headers, o.created_at, _dead_letter.attempt, _dead_letter.reason, _dead_letter.error
      FROM durable_notify.subscription s
     CROSS JOIN LATERAL durable_notify._message(s.topic, _dead_letter.message_id, _dead_letter.message_id, _dead_letter.message_id) AS o
     WHERE s.id = _dead_letter.subscription_id;
    IF FOUND AND EXISTS (SELECT FROM durable_notify.operator_event e WHERE e.kind = 'dead_letter') THEN
        PERFORM durable_notify._publish_event('dead_letter', g.name, s.topic, pg_catalog.jsonb_build_object(
                'id', message_id, 'attempts', attempt, 'error_type', pg_catalog.left(error ->> 'type', 200),
                'reason', CASE WHEN reason = 'expired' THEN 'expired'
                               WHEN reason ~ '^dropped(:|$)' THEN 'dropped'
                               WHEN reason ~ '^attempt [0-9]+ of [0-9]+ failed' THEN 'attempts' ELSE 'rejected' END))
           FROM durable_notify.subscription s JOIN durable_notify.consumer_group g ON g.id = s.group_id
          WHERE s.id = _dead_letter.subscription_id;
    END IF;
END
$function$;
