CREATE FUNCTION durable_notify.last_id(topic text) RETURNS bigint
LANGUAGE plpgsql STABLE STRICT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- The highest id of a topic that is visible now, or 0.
    RETURN COALESCE(
        (SELECT o.id FROM durable_notify.outbox o WHERE o.topic = last_id.topic ORDER BY o.id DESC LIMIT 1), 0);
END
$function$;
