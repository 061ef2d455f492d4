CREATE FUNCTION durable_notify.retention_blockers() RETURNS TABLE (
    topic text, group_name text, from_id bigint, upto_id bigint, published_at timestamptz, bytes bigint, alarm boolean
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
BEGIN
    -- What stays although its age or size says that it is to be removed: of which topic, from which id
    -- up to which, because of which group (NULL: it is not archived yet), when the first of it was
    -- published, how much that is (NULL: not measured), and whether it exceeds the alarm.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._retention_blockers_granted();
        RETURN;
    END IF;
    RETURN QUERY SELECT * FROM durable_notify._retention_blockers_of('');
END
$function$;

CREATE FUNCTION durable_notify._retention_blockers_of(regex text) RETURNS TABLE (
    topic text, group_name text, from_id bigint, upto_id bigint, published_at timestamptz, bytes bigint, alarm boolean
)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    policy durable_notify.topic_retention;
    below bigint;
    subscription record;
BEGIN
    -- retention_blockers() of the topics that match a regular expression.
    FOR topic IN SELECT t FROM durable_notify._topics() AS t WHERE t ~ regex LOOP
        policy := durable_notify._retention_for(topic);
        CONTINUE WHEN policy.max_age IS NULL AND policy.max_bytes IS NULL AND policy.min_age IS NULL;
        -- By when_settled alone nothing is due that a group has not settled.
        below := CASE WHEN policy.min_age IS NULL THEN durable_notify._policy_watermark(topic, policy)
                      ELSE durable_notify._due_watermark(topic, policy) END;
        CONTINUE WHEN NOT EXISTS (SELECT FROM durable_notify.outbox o WHERE o.topic = _retention_blockers_of.topic AND o.id < below);
        FOR subscription IN
            SELECT g.name, durable_notify._settled_watermark(s.id, below) AS settled
              FROM durable_notify.subscription s JOIN durable_notify.consumer_group g ON g.id = s.group_id
             WHERE s.topic = _retention_blockers_of.topic
            UNION ALL
            SELECT NULL, LEAST(COALESCE((SELECT p.archived_below FROM durable_notify.maintenance_progress p WHERE p.topic = _retention_blockers_of.topic), 1), below)
             WHERE policy.archive
        LOOP
            from_id := NULL;
            SELECT o.id, o.created_at INTO from_id, published_at FROM durable_notify.outbox o
             WHERE o.topic = _retention_blockers_of.topic AND o.id >= subscription.settled AND o.id < below ORDER BY o.id LIMIT 1;
            CONTINUE WHEN from_id IS NULL;
            group_name := subscription.name;
            upto_id := below - 1;
            bytes := (SELECT pg_catalog.sum(e.bytes)::bigint FROM durable_notify.topic_size e
                       WHERE e.topic = _retention_blockers_of.topic AND e.upto_id >= from_id AND e.upto_id < below);
            alarm := COALESCE(bytes > policy.alarm_bytes, false);
            RETURN NEXT;
        END LOOP;
    END LOOP;
END
$function$;

CALL durable_notify._grantable('retention_blockers', '{observe,consume}', $$_require_observe()$$,
    visible => $$_can_observe(f.group_name, f.topic)$$);
