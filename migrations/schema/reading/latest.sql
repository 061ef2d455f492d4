CREATE FUNCTION durable_notify.latest(topic text) RETURNS TABLE (
    s0 pg_snapshot, h0 bigint, id bigint, key text, payload jsonb, data bytea, headers jsonb, published_at timestamptz
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    seen pg_snapshot;
BEGIN
    -- The latest message of every key of a topic, by id, and where to read on from. Everything comes
    -- from one snapshot, so that no message is missing and none comes twice. If there is no message,
    -- one row without a message holds the position. It reads the whole topic.
    -- STABLE: all of it reads with the caller's snapshot. Messages that the position does not count as
    -- read are left out.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._latest_granted(topic);
        RETURN;
    END IF;
    seen := durable_notify._durable_snapshot(topic);
    RETURN QUERY
    WITH last AS (
        SELECT DISTINCT ON (o.key) o.id, o.key, o.payload, o.data, o.headers, o.created_at, o.expires_at
          FROM durable_notify.outbox o
         WHERE o.topic = latest.topic AND o.key IS NOT NULL AND pg_catalog.pg_visible_in_snapshot(o.xid, seen)
         ORDER BY o.key, o.id DESC)
    SELECT seen,
           (SELECT COALESCE(pg_catalog.max(o.id), 0) FROM durable_notify.outbox o WHERE o.topic = latest.topic),
           l.id, l.key, l.payload, l.data, l.headers, l.created_at
      FROM (SELECT 1) AS one
      LEFT JOIN last l ON l.expires_at IS NULL OR l.expires_at > pg_catalog.clock_timestamp()
     ORDER BY l.id;
END
$function$;

CALL durable_notify._grantable('latest', '{read}', $$_require('read', ARRAY[topic])$$);
