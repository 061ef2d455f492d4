CREATE FUNCTION durable_notify._id_before(topic text, since timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE STRICT AS $function$
#variable_conflict use_column
BEGIN
    -- The highest id after which every message published at or after a time is found.
    --
    -- Ids and times need not run in step, so a few earlier messages may follow it, but a later one
    -- never precedes it. If nothing was published since, it is the topic's last id.
    RETURN COALESCE(
        (SELECT pg_catalog.min(o.id) - 1 FROM durable_notify.outbox o
          WHERE o.topic = _id_before.topic AND o.created_at >= _id_before.since),
        durable_notify.last_id(topic));
END
$function$;
