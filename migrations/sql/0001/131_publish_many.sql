CREATE FUNCTION durable_notify.publish_many(
    topic text, payloads jsonb[], keys text[] DEFAULT NULL, headers jsonb[] DEFAULT NULL,
    data bytea[] DEFAULT NULL
) RETURNS SETOF bigint
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
BEGIN
    -- Publish many messages of one topic in one statement; returns their ids in the order given.
    --
    -- The arrays run in step; a NULL array means NULL for every message. All or none are published.
    RETURN QUERY
    INSERT INTO durable_notify.outbox (topic, key, payload, data, headers)
    SELECT publish_many.topic, m.key, m.payload, m.data, m.headers
      FROM ROWS FROM (
               pg_catalog.unnest(publish_many.payloads), pg_catalog.unnest(publish_many.keys),
               pg_catalog.unnest(publish_many.headers), pg_catalog.unnest(publish_many.data)
           ) AS m (payload, key, headers, data)
    RETURNING id;
END
$function$;
