CREATE FUNCTION durable_notify.backoff(options durable_notify.consumer_group, attempt integer) RETURNS interval
LANGUAGE sql VOLATILE AS $function$
    -- The delay after a failed attempt by a group's policy: half of it fixed, half random ("equal
    -- jitter"; Brooker, "Exponential Backoff and Jitter", 2015), so that what failed together does
    -- not come back together.
    SELECT LEAST(EXTRACT(epoch FROM options.retry_max)::double precision,
                 EXTRACT(epoch FROM options.retry_base)::double precision
                     * options.retry_factor ^ LEAST(attempt - 1, 100))
           * (0.5 + pg_catalog.random() / 2) * interval '1 second'
$function$;
