CREATE FUNCTION durable_notify.discard(
    group_name text, topic text DEFAULT NULL, ids bigint[] DEFAULT NULL, key text DEFAULT NULL,
    error_type text DEFAULT NULL, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL,
    everything boolean DEFAULT false, why text DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_variable
BEGIN
    -- Delete the dead letters that match every condition given; returns how many.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._discard_granted(group_name, topic, ids, key, error_type, since, until, everything, why);
    END IF;
    RETURN (SELECT pg_catalog.count(DISTINCT t.message_id) FROM durable_notify._delete_dead_letters(
        'discard', group_name, topic, ids, key, error_type, since, until, everything, why) AS t);
END
$function$;

CALL durable_notify._grantable('discard', '{consume}', $$_require('consume', durable_notify._topics_or_all(group_name, topic), group_name)$$);
