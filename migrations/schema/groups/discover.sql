CREATE FUNCTION durable_notify.discover(group_name text, patterns text[]) RETURNS SETOF text
LANGUAGE plpgsql
SET lock_timeout = '5s'
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    for_group integer;
    fresh text[];
BEGIN
    -- Subscribe a group to the topics in the outbox that its patterns match and that it is not
    -- subscribed to yet, from their beginning. Returns all of its topics that these patterns match.
    --
    -- From the beginning: the topics that existed when the pattern was subscribed were subscribed with
    -- it, so all messages of a topic first seen now were committed since.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._discover_granted(group_name, patterns);
        RETURN;
    END IF;
    SELECT g.id INTO for_group FROM durable_notify.consumer_group g WHERE g.name = group_name;
    SELECT pg_catalog.array_agg(t.topic) INTO fresh FROM durable_notify._topics() AS t (topic)
     WHERE EXISTS (SELECT FROM durable_notify.group_pattern p
                    WHERE p.group_id = for_group AND t.topic ~ durable_notify._topic_regex(p.pattern))
       AND NOT EXISTS (SELECT FROM durable_notify.subscription s
                        WHERE s.group_id = for_group AND s.topic = t.topic);
    IF for_group IS NULL OR fresh IS NOT NULL THEN
        PERFORM durable_notify._block_removal();
        for_group := (durable_notify._lock_group(group_name)).id;
        PERFORM durable_notify._subscribe_topics(for_group, fresh, 'beginning', NULL);
    END IF;
    RETURN QUERY
    SELECT s.topic FROM durable_notify.subscription s
     WHERE s.group_id = for_group
       AND EXISTS (SELECT FROM pg_catalog.unnest(patterns) AS p (pattern)
                    WHERE s.topic ~ durable_notify._topic_regex(p.pattern))
     ORDER BY s.topic;
END
$function$;

CALL durable_notify._grantable('discover', '{consume}', $$_require('consume', patterns, group_name)$$);
