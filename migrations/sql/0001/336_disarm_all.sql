CREATE FUNCTION durable_notify.disarm_all(topics text[]) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
BEGIN
    -- Disarm doorbells of topics that arm_all() has armed on this session.
    PERFORM pg_catalog.pg_advisory_unlock_shared(1685024362, pg_catalog.hashtext(t.topic))
       FROM pg_catalog.unnest(topics) AS t (topic);
END
$function$;
