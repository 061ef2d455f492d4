CREATE FUNCTION durable_notify._defer(
    subscription_id integer, message_id bigint, attempt integer, due_at timestamptz, key text, error jsonb,
    max_attempts integer
) RETURNS void
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
BEGIN
    -- Redeliver a message at its due time as the given attempt. If that is one too many, make it a dead
    -- letter: a message that kills its consumers must not be redelivered for ever. One that was erased while a
    -- consumer held it is gone: its key and its error must not be kept.
    IF attempt > max_attempts THEN
        PERFORM durable_notify._dead_letter(
            subscription_id, message_id, attempt - 1,
            pg_catalog.format('attempt %s of %s failed', attempt - 1, max_attempts)
                || COALESCE(': ' || NULLIF(error ->> 'type', ''), '') || COALESCE(': ' || (error ->> 'message'), ''), error);
        RETURN;
    END IF;
    INSERT INTO durable_notify.deferred (subscription_id, message_id, due_at, attempt, key, error)
    SELECT s.id, o.id, _defer.due_at, _defer.attempt, _defer.key, _defer.error
      FROM durable_notify.subscription s
     CROSS JOIN LATERAL durable_notify._message(s.topic, _defer.message_id, _defer.message_id, _defer.message_id) AS o
     WHERE s.id = _defer.subscription_id;
END
$function$;
