CREATE FUNCTION durable_notify._topics_to_claim(options durable_notify.consumer_group, topics text[]) RETURNS text[]
LANGUAGE plpgsql VOLATILE AS $function$
#variable_conflict use_column
BEGIN
    -- Of many topics, return those from which a claim may deliver something, and those that the group is
    -- not subscribed to, first. One statement for all: of 1,000 topics most have nothing.
    --
    -- Exact in one direction: a topic is left out only if at this moment its window is finished, no
    -- lease is left, nothing is deferred, no row has an id above h0, and none up to h0 has an xid that
    -- was running in s0 or is at or past its xmax. That is all that a claim looks for. The caller holds
    -- the group's lock, so no position moves; what commits later rings.
    -- In random order: a topic that always fills the batch must not starve the others.
    RETURN ARRAY(
        SELECT t.topic
          FROM (SELECT DISTINCT pg_catalog.unnest(_topics_to_claim.topics)) AS t (topic)
          LEFT JOIN durable_notify.subscription s ON s.group_id = options.id AND s.topic = t.topic
          LEFT JOIN LATERAL (
               SELECT q.* FROM durable_notify.position q
                WHERE q.subscription_id = s.id ORDER BY q.seq DESC LIMIT 1) AS pos ON true
         WHERE pos.seq IS NULL OR options.order_by = 'strict' OR pos.s1 IS NOT NULL
            OR (SELECT o.id FROM durable_notify.outbox o
                 WHERE o.topic = t.topic AND o.id > pos.h0 ORDER BY o.id LIMIT 1) IS NOT NULL
            OR (SELECT o.id FROM durable_notify.outbox o
                 WHERE o.topic = t.topic AND o.xid >= pg_catalog.pg_snapshot_xmax(pos.s0)
                   AND o.id >= durable_notify._closed_below(pos.s0) AND o.id <= pos.h0
                 ORDER BY o.xid, o.id LIMIT 1) IS NOT NULL
            OR pg_catalog.pg_snapshot_xmin(pos.s0) <> pg_catalog.pg_snapshot_xmax(pos.s0) AND EXISTS (
               SELECT FROM pg_catalog.pg_snapshot_xip(pos.s0) AS running (xid)
                WHERE (SELECT o.id FROM durable_notify.outbox o
                        WHERE o.topic = t.topic
                          AND (o.xid, o.id) >= (running.xid, durable_notify._closed_below(pos.s0)) AND (o.xid, o.id) <= (running.xid, pos.h0)
                          AND o.id >= durable_notify._closed_below(pos.s0) AND o.id <= pos.h0
                        ORDER BY o.xid, o.id LIMIT 1) IS NOT NULL)
            OR EXISTS (SELECT FROM durable_notify.deferred d WHERE d.subscription_id = s.id)
            OR pos.lease_tokens <> '{}' AND EXISTS (SELECT FROM durable_notify.lease l WHERE l.token = ANY (pos.lease_tokens))
         ORDER BY s.id IS NOT NULL, pg_catalog.random());
END
$function$;
