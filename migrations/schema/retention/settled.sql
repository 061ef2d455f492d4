CREATE FUNCTION durable_notify._settled_watermark(subscription_id integer, max_id bigint) RETURNS bigint
LANGUAGE plpgsql STABLE STRICT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_sort = off SET jit = off SET plan_cache_mode = force_generic_plan AS $function$
#variable_conflict use_column
DECLARE
    pos durable_notify.position;
    source text;
    seen pg_snapshot := pg_catalog.pg_current_snapshot();
    last bigint := max_id - 1;
BEGIN
    -- The highest id, max_id at most, below which a subscription has settled every existing message:
    -- none is unread, leased, or deferred. STABLE: it reads one snapshot, in which each message is in
    -- one place.
    --
    -- Delivered is what is visible in s0 up to h0, or in s1 up to p: above both nothing is, and below
    -- only stragglers are not.
    PERFORM durable_notify.log_id();  -- refuses an outbox that came from another cluster
    SELECT * INTO STRICT pos FROM durable_notify.position p
     WHERE p.subscription_id = _settled_watermark.subscription_id ORDER BY p.seq DESC LIMIT 1;
    SELECT s.topic INTO STRICT source FROM durable_notify.subscription s WHERE s.id = _settled_watermark.subscription_id;
    max_id := LEAST(
        max_id,
        GREATEST(pos.h0, CASE WHEN pos.s1 IS NOT NULL THEN pos.p END) + 1,
        (SELECT d.message_id FROM durable_notify.deferred d
          WHERE d.subscription_id = _settled_watermark.subscription_id ORDER BY d.message_id LIMIT 1),
        (SELECT pg_catalog.min(m.id) FROM durable_notify.lease l CROSS JOIN LATERAL pg_catalog.unnest(l.ids) AS m (id)
          WHERE l.subscription_id = _settled_watermark.subscription_id
            AND NOT EXISTS (SELECT FROM durable_notify.settlement t WHERE t.token = l.token AND t.message_id = m.id)),
        (SELECT j.last_id + 1 FROM durable_notify.replay_job j
          WHERE j.subscription_id = _settled_watermark.subscription_id AND j.state = 'running'));
    last := max_id - 1;
    IF pos.s1 IS NULL THEN
        RETURN LEAST(max_id, (SELECT durable_notify._stragglers(source, pos.s0, seen, 0, LEAST(pos.h0, last), 1)));
    END IF;
    RETURN LEAST(
        max_id,
        (SELECT durable_notify._stragglers(source, pos.s1, seen, 0, LEAST(pos.p, last), 1)),
        (SELECT durable_notify._stragglers(source, pos.s0, seen, pos.p, LEAST(pos.h0, last), 1)
          WHERE pos.p < LEAST(pos.h0, last)));
END
$function$;

CREATE FUNCTION durable_notify._all_settled_watermark(topic text, max_id bigint) RETURNS bigint
LANGUAGE plpgsql STABLE STRICT AS $function$
#variable_conflict use_column
DECLARE
    subscription integer;
BEGIN
    -- The highest id, max_id at most, below which every group has settled every message of a topic. 0
    -- if a group has a pattern that matches the topic and has yet to discover it: it is to get all of
    -- it.
    IF EXISTS (SELECT FROM durable_notify.group_pattern p
                WHERE topic ~ durable_notify._topic_regex(p.pattern)
                  AND NOT EXISTS (SELECT FROM durable_notify.subscription s
                                   WHERE s.group_id = p.group_id AND s.topic = _all_settled_watermark.topic)) THEN
        RETURN 0;
    END IF;
    FOR subscription IN SELECT s.id FROM durable_notify.subscription s WHERE s.topic = _all_settled_watermark.topic ORDER BY s.id LOOP
        max_id := durable_notify._settled_watermark(subscription, max_id);
    END LOOP;
    RETURN max_id;
END
$function$;
