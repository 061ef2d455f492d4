CREATE FUNCTION durable_notify.publish_many(
    topic text, payloads jsonb[], keys text[] DEFAULT NULL, headers jsonb[] DEFAULT NULL,
    data bytea[] DEFAULT NULL, deliver_ats timestamptz[] DEFAULT NULL, delays interval[] DEFAULT NULL,
    expires_ats timestamptz[] DEFAULT NULL, ttls interval[] DEFAULT NULL
) RETURNS SETOF bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- Publish many messages of one topic in one statement; returns their ids in the order given.
    --
    -- The arrays run in step; a NULL array means NULL for every message. All or none are published. The
    -- options are those of publish(); messages with a dedup key are published one by one, by that
    -- function.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._publish_many_granted(
            topic, payloads, keys, headers, data, deliver_ats, delays, expires_ats, ttls);
        RETURN;
    END IF;
    IF deliver_ats IS NULL AND delays IS NULL AND expires_ats IS NULL AND ttls IS NULL THEN
        RETURN QUERY
        INSERT INTO durable_notify.outbox (topic, key, payload, data, headers)
        SELECT publish_many.topic, m.key, m.payload, m.data, m.headers
          FROM ROWS FROM (
                   pg_catalog.unnest(publish_many.payloads), pg_catalog.unnest(publish_many.keys),
                   pg_catalog.unnest(publish_many.headers), pg_catalog.unnest(publish_many.data)
               ) AS m (payload, key, headers, data)
        RETURNING id;
        RETURN;
    END IF;
    RETURN QUERY
    INSERT INTO durable_notify.outbox (topic, key, payload, data, headers, deliver_at, expires_at)
    SELECT publish_many.topic, m.key, m.payload, m.data, m.headers, t.deliver_at, t.expires_at
      FROM ROWS FROM (
               pg_catalog.unnest(publish_many.payloads), pg_catalog.unnest(publish_many.keys),
               pg_catalog.unnest(publish_many.headers), pg_catalog.unnest(publish_many.data),
               pg_catalog.unnest(deliver_ats), pg_catalog.unnest(delays),
               pg_catalog.unnest(expires_ats), pg_catalog.unnest(ttls)
           ) WITH ORDINALITY AS m (payload, key, headers, data, deliver_at, delay, expires_at, ttl, ord)
     CROSS JOIN LATERAL durable_notify._delivery_times(m.deliver_at, m.delay, m.expires_at, m.ttl) AS t
     ORDER BY m.ord
    RETURNING id;
END
$function$;

CALL durable_notify._grantable('publish_many', '{publish}', $$_require('publish', ARRAY[topic])$$);
