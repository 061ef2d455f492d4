CREATE FUNCTION durable_notify.drop_retries(
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
    -- Make dead letters of messages that wait for their next attempt; returns how many. Those that match
    -- every condition given. Their keys are free then. redrive() takes it back.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._drop_retries_granted(group_name, topic, ids, key, error_type, since, until, everything, why);
    END IF;
    chosen := durable_notify._lock_retries('drop', group_name, topic, ids, key, error_type, since, until, everything, why);
    DELETE FROM durable_notify.deferred d USING pg_catalog.unnest(chosen) AS c
     WHERE d.subscription_id = c.subscription_id AND d.message_id = c.message_id;
    PERFORM durable_notify._dead_letter(
                c.subscription_id, c.message_id, c.attempt - 1, 'dropped' || COALESCE(': ' || why, ''), c.error)
       FROM pg_catalog.unnest(chosen) AS c;
    RETURN pg_catalog.cardinality(chosen);
END
$function$;

CALL durable_notify._grantable('drop_retries', '{consume}', $$_require('consume', durable_notify._topics_or_all(group_name, topic), group_name)$$);
