CREATE FUNCTION durable_notify.disarm(topic text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
BEGIN
    -- Undo arm(): publishers need not ring for this session. Returns whether it was armed.
    -- Trap: in one expression. A cancel between two statements would keep one of the locks.
    RETURN durable_notify.armed(topic)
       AND pg_catalog.pg_advisory_unlock_shared(1685024363, durable_notify._topic_mark(topic))
       AND durable_notify._release_doorbell(topic);
END
$function$;

CREATE FUNCTION durable_notify._disarm_topics(topics text[]) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
BEGIN
    -- Disarm doorbells of topics that _arm_topics() has armed on this session.
    PERFORM durable_notify._release_doorbell(t.topic)
       FROM pg_catalog.unnest(topics) AS t (topic);
END
$function$;

CALL durable_notify._grantable('disarm', '{read,consume}');
CALL durable_notify._grantable('_disarm_topics', '{read,consume}');
