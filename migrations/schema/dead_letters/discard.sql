CREATE FUNCTION durable_notify.discard(
    group_name text, topic text DEFAULT NULL, ids bigint[] DEFAULT NULL, key text DEFAULT NULL,
    error_type text DEFAULT NULL, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL,
    everything boolean DEFAULT false, why text DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    recorded record;
    discarded bigint := 0;
BEGIN
    -- Forget dead letters, those that fit every condition given; returns how many.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._discard_granted(group_name, topic, ids, key, error_type, since, until, everything, why);
    END IF;
    FOR recorded IN
        SELECT t.topic, pg_catalog.count(DISTINCT t.message_id) AS messages,
               pg_catalog.jsonb_build_object('ids', pg_catalog.jsonb_agg(DISTINCT t.message_id)) AS details
          FROM durable_notify._delete_dead_letters(group_name, discard.topic, ids, key, error_type, since, until, everything) AS t
         GROUP BY t.topic
    LOOP
        PERFORM durable_notify._record_audit('discard', group_name, recorded.details, recorded.topic, recorded.messages, why);
        discarded := discarded + recorded.messages;
    END LOOP;
    RETURN discarded;
END
$function$;
