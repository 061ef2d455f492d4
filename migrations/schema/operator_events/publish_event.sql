CREATE FUNCTION durable_notify._publish_event(
    kind text, group_name text, topic text, about jsonb, rationed boolean DEFAULT true
) RETURNS boolean
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $function$
#variable_conflict use_column
DECLARE
    recent bigint := 0;
BEGIN
    -- Publish an operator event of a group and a topic, in this transaction, if that is switched on;
    -- returns whether it did. about: ids, numbers and classes, never what a payload or an error says.
    --
    -- Events must not make events. Nothing is published about messages of operator events, nor about a
    -- group that gets them: what keeps its consumers from working would be told to those.
    -- rationed: a group gets 20 of a kind in a minute; the 20th says so. It looks at the newest 200 of
    -- the kind: a counter would be a row that open transactions of handlers lock for each other. At
    -- SERIALIZABLE it does not look, or each event would conflict with the next.
    IF topic ~ '^durable_notify[.]'
       OR NOT EXISTS (SELECT FROM durable_notify.operator_event e
                       WHERE e.kind = _publish_event.kind AND e.group_name IN ('', _publish_event.group_name))
       OR durable_notify._gets_operator_events(group_name) THEN
        RETURN false;
    END IF;
    IF rationed AND pg_catalog.current_setting('transaction_isolation') <> 'serializable' THEN
        SELECT pg_catalog.count(*) INTO recent
          FROM (SELECT o.key, o.created_at FROM durable_notify.outbox o
                 WHERE o.topic = 'durable_notify.' || _publish_event.kind ORDER BY o.id DESC LIMIT 200) AS newest
         WHERE newest.key = group_name AND newest.created_at > pg_catalog.clock_timestamp() - interval '1 minute';
        IF recent >= 20 THEN
            RETURN false;
        END IF;
    END IF;
    INSERT INTO durable_notify.outbox (topic, key, payload)
    VALUES ('durable_notify.' || kind, NULLIF(group_name, ''), about || pg_catalog.jsonb_build_object(
            'group', NULLIF(group_name, ''), 'topic', NULLIF(topic, ''))
            || CASE WHEN recent = 19 THEN '{"more": true}'::jsonb ELSE '{}'::jsonb END);
    RETURN true;
END
$function$;

CREATE FUNCTION durable_notify._gets_operator_events(group_name text) RETURNS boolean
LANGUAGE sql STABLE AS $function$
    -- Return whether a group is subscribed to topics of operator events, or has a pattern that matches
    -- one.
    SELECT EXISTS (
        SELECT FROM durable_notify.consumer_group g
         WHERE g.name = _gets_operator_events.group_name
           AND (EXISTS (SELECT FROM durable_notify.subscription s WHERE s.group_id = g.id AND s.topic ~ '^durable_notify[.]')
                OR EXISTS (SELECT FROM durable_notify.group_pattern p
                            WHERE p.group_id = g.id AND 'durable_notify.dead_letter' ~ durable_notify._topic_regex(p.pattern))))
$function$;
