CREATE FUNCTION durable_notify.already_published(
    topic text, channel text, since pg_snapshot, passed bigint[], payloads text[], pids integer[]
) RETURNS TABLE (ord bigint, ids bigint[])
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- Of notifications that were heard on a channel, return those that notify() has published to the
    -- topic itself: the number of each (1, 2, ...) with its message. It looks only at messages that are
    -- not visible in the snapshot "since" and whose ids are not in "passed". Each message accounts for one
    -- notification, but PostgreSQL notifies the same payload only once in a transaction.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._already_published_granted(topic, channel, since, passed, payloads, pids);
        RETURN;
    END IF;
    RETURN QUERY
    WITH published AS MATERIALIZED (  -- not visible in a snapshot: at or past its xmax, or in its list
        SELECT o.id, o.xid, o.headers, o.payload FROM durable_notify.outbox o
         WHERE o.topic = already_published.topic AND o.xid >= pg_catalog.pg_snapshot_xmax(since)
        UNION ALL
        SELECT late.* FROM pg_catalog.pg_snapshot_xip(since) AS x (xid)
         CROSS JOIN LATERAL (
               SELECT o.id, o.xid, o.headers, o.payload FROM durable_notify.outbox o
                WHERE o.topic = already_published.topic AND o.xid = x.xid OFFSET 0) AS late
    ), by_notify AS (
        SELECT p.id, p.xid, p.headers #>> '{notified,pid}' AS pid,  -- text: the publisher writes the headers
               CASE WHEN pg_catalog.octet_length(p.payload #>> '{}') < 8000 THEN p.payload #>> '{}' ELSE p.id::text END AS raw
          FROM published p
         WHERE p.headers #>> '{notified,channel}' = channel AND p.id <> ALL (COALESCE(passed, '{}'))
    ), turns AS (
        SELECT b.pid, b.raw, pg_catalog.array_agg(b.id) AS ids,
               pg_catalog.row_number() OVER (PARTITION BY b.pid, b.raw ORDER BY pg_catalog.min(b.id)) AS turn
          FROM by_notify b GROUP BY b.pid, b.raw, b.xid
    ), heard AS (
        SELECT h.ord, h.pid::text AS pid, h.payload AS raw,
               pg_catalog.row_number() OVER (PARTITION BY h.pid, h.payload ORDER BY h.ord) AS turn
          FROM ROWS FROM (pg_catalog.unnest(payloads), pg_catalog.unnest(pids)) WITH ORDINALITY AS h (payload, pid, ord)
    )
    SELECT heard.ord, turns.ids FROM heard JOIN turns USING (pid, raw, turn) ORDER BY 1;
END
$function$;

CALL durable_notify._grantable('already_published', '{publish}', $$_require('publish', ARRAY[topic])$$);
