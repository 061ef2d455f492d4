CREATE FUNCTION durable_notify._subscribe_topics(
    new_group integer, topics text[], start_at text, since timestamptz
) RETURNS void
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    new_subscription record;
    start_id bigint;
    seen pg_snapshot;
BEGIN
    -- Subscribe a group to topics, if it is not subscribed yet. The caller holds the group's lock, and
    -- called _block_removal() before that: what is to be delivered is not removed before the
    -- subscription can be seen.
    --
    -- Take the snapshot before start_id is read: what commits in between is then late, and looked for;
    -- not skipped.
    seen := CASE start_at WHEN 'beginning' THEN '3:3:' ELSE durable_notify._committed_snapshot() END;
    FOR new_subscription IN
        INSERT INTO durable_notify.subscription (group_id, topic)
        SELECT new_group, t.topic FROM (SELECT DISTINCT pg_catalog.unnest(topics)) AS t (topic)
        ON CONFLICT (group_id, topic) DO NOTHING
        RETURNING id, topic
    LOOP
        start_id := CASE start_at
            WHEN 'beginning' THEN 0
            WHEN 'now' THEN durable_notify.last_id(new_subscription.topic)
            ELSE durable_notify._id_before(new_subscription.topic, since)
        END;
        -- A window not yet opened: everything after start_id is delivered, and what is in flight,
        -- however low its id.
        INSERT INTO durable_notify.position (subscription_id, seq, s0, h0, s1, h1, p, lease_tokens)
        VALUES (new_subscription.id, 1, seen, start_id, NULL, NULL, 0, '{}');
    END LOOP;
END
$function$;
