CREATE FUNCTION durable_notify.retry(
    held durable_notify.lease, options durable_notify.consumer_group, ids bigint[], delays interval[], errors jsonb[]
) RETURNS void
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    now_time timestamptz := pg_catalog.clock_timestamp();
BEGIN
    -- Send settled messages of a lease out again, each after its delay or as the group backs off.
    PERFORM durable_notify.defer(
        held.subscription_id, m.id, t.attempt + 1,
        now_time + COALESCE(m.delay, durable_notify.backoff(options, t.attempt)), t.key, m.error, options.max_attempts)
       FROM ROWS FROM (pg_catalog.unnest(retry.ids), pg_catalog.unnest(delays), pg_catalog.unnest(errors))
            AS m (id, delay, error)
       JOIN ROWS FROM (pg_catalog.unnest(held.ids), pg_catalog.unnest(held.attempts),
                       pg_catalog.unnest(durable_notify.keys_of(held, options.order_by)))
            AS t (id, attempt, key) ON t.id = m.id;
END
$function$;
