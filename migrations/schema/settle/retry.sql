CREATE FUNCTION durable_notify._schedule_retry(
    lease durable_notify.lease, options durable_notify.consumer_group, ids bigint[], delays interval[], errors jsonb[]
) RETURNS void
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    now_time timestamptz := pg_catalog.clock_timestamp();
BEGIN
    -- Redeliver settled messages of a lease, each after its delay or as the group backs off.
    PERFORM durable_notify._defer(
        lease.subscription_id, m.id, t.attempt + 1,
        now_time + COALESCE(m.delay, durable_notify._backoff(options, t.attempt)), t.key, m.error, options.max_attempts)
       FROM ROWS FROM (pg_catalog.unnest(_schedule_retry.ids), pg_catalog.unnest(delays), pg_catalog.unnest(errors))
            AS m (id, delay, error)
       JOIN ROWS FROM (pg_catalog.unnest(lease.ids), pg_catalog.unnest(lease.attempts),
                       pg_catalog.unnest(durable_notify._lease_keys(lease, options.order_by)))
            AS t (id, attempt, key) ON t.id = m.id;
END
$function$;

CREATE FUNCTION durable_notify._backoff(options durable_notify.consumer_group, attempt integer) RETURNS interval
LANGUAGE sql VOLATILE AS $function$
    -- The delay after a failed attempt by a group's policy: half of it fixed, half random ("equal
    -- jitter"; Brooker, "Exponential Backoff and Jitter", 2015), so that what failed together is not
    -- redelivered together.
    SELECT COALESCE(options.retry_delays[LEAST(attempt, pg_catalog.cardinality(options.retry_delays))],
                    LEAST(EXTRACT(epoch FROM options.retry_max)::double precision,
                          EXTRACT(epoch FROM options.retry_base)::double precision
                              * options.retry_factor ^ LEAST(attempt - 1, 100)))
           * (0.5 + pg_catalog.random() / 2) * interval '1 second'
$function$;
