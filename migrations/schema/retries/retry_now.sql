CREATE FUNCTION durable_notify.retry_now(
    group_name text, topic text DEFAULT NULL, ids bigint[] DEFAULT NULL, key text DEFAULT NULL,
    error_type text DEFAULT NULL, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL,
    everything boolean DEFAULT false, why text DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_variable
DECLARE
    chosen durable_notify.deferred[];
BEGIN
    -- Redeliver messages that wait for their next attempt at once; returns how many. Those that match
    -- every condition given. Their attempts stay counted.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._retry_now_granted(group_name, topic, ids, key, error_type, since, until, everything, why);
    END IF;
    chosen := durable_notify._lock_retries('retry', group_name, topic, ids, key, error_type, since, until, everything, why);
    UPDATE durable_notify.deferred d SET due_at = pg_catalog.clock_timestamp()
      FROM pg_catalog.unnest(chosen) AS c
     WHERE d.subscription_id = c.subscription_id AND d.message_id = c.message_id AND d.reason = 'retry'
       AND d.due_at > pg_catalog.clock_timestamp();
    RETURN pg_catalog.cardinality(chosen);
END
$function$;

CALL durable_notify._grantable('retry_now', '{consume}', $$_require('consume', durable_notify._topics_or_all(group_name, topic), group_name)$$);
