CREATE FUNCTION durable_notify.retry(
    held durable_notify.lease, ids bigint[], delays interval[], errors text[]
) RETURNS void
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    attempts_allowed integer;
    topic text;
    now_time timestamptz := pg_catalog.clock_timestamp();
BEGIN
    -- Send settled messages of a lease out again, each after its delay.
    SELECT g.max_attempts, s.topic INTO STRICT attempts_allowed, topic
      FROM durable_notify.subscription s JOIN durable_notify.consumer_group g ON g.id = s.group_id
     WHERE s.id = held.subscription_id;
    PERFORM durable_notify.defer(
        held.subscription_id, m.id, durable_notify.attempt_of(held, m.id) + 1,
        now_time + COALESCE(m.delay, '0'), m.error, attempts_allowed)
       FROM ROWS FROM (pg_catalog.unnest(ids), pg_catalog.unnest(delays), pg_catalog.unnest(errors))
            AS m (id, delay, error);
    -- Whatever makes a message deliverable rings: a sleeper may not know of this due time.
    PERFORM pg_catalog.pg_notify(durable_notify.channel(topic), ids[1]::text);
END
$function$;
