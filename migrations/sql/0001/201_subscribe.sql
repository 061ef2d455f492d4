CREATE FUNCTION durable_notify.subscribe(
    group_name text, topics text[], start_at text DEFAULT 'beginning', since timestamptz DEFAULT NULL,
    max_attempts integer DEFAULT NULL
) RETURNS integer
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    new_group integer;
    new_subscription record;
    start_id bigint;
    seen pg_snapshot;
BEGIN
    -- Create a group, and subscribe it to topics, where it is not yet; returns the group's id.
    --
    -- start_at: 'beginning' (all that is retained), 'now' (what commits from here on) or 'since'
    -- (what was published at or after that time). It matters for new subscriptions only: what
    -- exists keeps its position. max_attempts, where given, is set for the whole group.
    IF start_at IS NULL OR start_at NOT IN ('beginning', 'now', 'since')
       OR (start_at = 'since') <> (since IS NOT NULL) THEN
        RAISE EXCEPTION 'a group starts at ''beginning'', ''now'', or ''since'' with a time'
            USING ERRCODE = '22023';
    END IF;
    INSERT INTO durable_notify.consumer_group (name, max_attempts)
    VALUES (group_name, COALESCE(subscribe.max_attempts, 20))
    ON CONFLICT (name) DO NOTHING;
    new_group := durable_notify.group_lock(group_name);
    UPDATE durable_notify.consumer_group g SET max_attempts = subscribe.max_attempts
     WHERE g.id = new_group AND g.max_attempts <> subscribe.max_attempts;
    -- Before start_id is read: what commits in between is then late, and looked for; not skipped.
    seen := CASE start_at WHEN 'beginning' THEN '3:3:' ELSE durable_notify.committed_snapshot() END;
    FOR new_subscription IN
        INSERT INTO durable_notify.subscription (group_id, topic)
        SELECT new_group, t.topic FROM (SELECT DISTINCT pg_catalog.unnest(topics)) AS t (topic)
        ON CONFLICT (group_id, topic) DO NOTHING
        RETURNING id, topic
    LOOP
        start_id := CASE start_at
            WHEN 'beginning' THEN 0
            WHEN 'now' THEN durable_notify.last_id(new_subscription.topic)
            ELSE durable_notify.id_before(new_subscription.topic, since)
        END;
        -- A window not yet opened: everything after start_id comes, and what is in flight,
        -- however low its id.
        INSERT INTO durable_notify.position (subscription_id, seq, s0, h0, s1, h1, p, live)
        VALUES (new_subscription.id, 1, seen, start_id, NULL, NULL, 0, '{}');
    END LOOP;
    RETURN new_group;
END
$function$;
