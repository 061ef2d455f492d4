CREATE FUNCTION durable_notify._defer(
    subscription_id integer, message_id bigint, attempt integer, due_at timestamptz, key text, error jsonb,
    max_attempts integer
) RETURNS void
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
BEGIN
    -- Send a message out again at its due time as the given attempt, or, where that is one too
    -- many, bury it: a message that kills its consumers must not go round for ever.
    IF attempt > max_attempts THEN
        PERFORM durable_notify._dead_letter(
            subscription_id, message_id, attempt - 1,
            pg_catalog.format('attempt %s of %s failed', attempt - 1, max_attempts)
                || COALESCE(': ' || NULLIF(error ->> 'type', ''), '') || COALESCE(': ' || (error ->> 'message'), ''), error);
        RETURN;
    END IF;
    INSERT INTO durable_notify.deferred (subscription_id, message_id, due_at, attempt, key, error)
    VALUES (_defer.subscription_id, _defer.message_id, _defer.due_at, _defer.attempt, _defer.key, _defer.error);
END
$function$;
