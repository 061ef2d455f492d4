CREATE FUNCTION durable_notify.subscribe(
    group_name text, topics text[], start_at text DEFAULT 'beginning', since timestamptz DEFAULT NULL
) RETURNS integer
LANGUAGE plpgsql
SET lock_timeout = '5s'
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    new_group integer;
    patterns text[];
    known text[];
    kept boolean := false;
BEGIN
    -- Create a group, and subscribe it to topics, if it is not subscribed yet; returns the group's id.
    --
    -- A topic may be a pattern, as _topic_regex() has it: it subscribes the group to all topics that
    -- match, and discover() to those that come later. start_at: 'beginning' (all that is retained),
    -- 'now' (what commits from here on) or 'since' (what was published at or after that time). It
    -- matters for new subscriptions only: what exists keeps its position.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._subscribe_granted(group_name, topics, start_at, since);
    END IF;
    IF start_at IS NULL OR start_at NOT IN ('beginning', 'now', 'since')
       OR (start_at = 'since') <> (since IS NOT NULL) THEN
        RAISE EXCEPTION 'start_at must be ''beginning'', ''now'', or ''since'' with a time'
            USING ERRCODE = '22023';
    END IF;
    patterns := ARRAY(SELECT DISTINCT t.topic FROM pg_catalog.unnest(topics) AS t (topic) WHERE t.topic ~ '[*>]');
    IF EXISTS (SELECT FROM pg_catalog.unnest(patterns) AS p (pattern)
                WHERE pg_catalog.octet_length(p.pattern) > 255 OR durable_notify._has_controls(p.pattern, true)
                   OR p.pattern !~ '^([^.*>]+|[*])([.]([^.*>]+|[*]))*([.]>)?$' AND p.pattern <> '>') THEN
        RAISE EXCEPTION 'invalid topic or pattern among %', patterns
            USING ERRCODE = '22023',
                  HINT = '* stands for one whole word between dots; > must be the last word and stands for one or more.';
    END IF;
    -- If the group is subscribed to everything already, as when each consumer starts, this waits for
    -- nothing.
    IF NOT durable_notify._is_subscribed(group_name, topics) THEN
        PERFORM durable_notify._block_removal();
        kept := true;
    END IF;
    INSERT INTO durable_notify.consumer_group (name) VALUES (group_name) ON CONFLICT (name) DO NOTHING
    RETURNING id INTO new_group;
    IF FOUND THEN
        INSERT INTO durable_notify.ordering (group_id) VALUES (new_group);
    END IF;
    new_group := (durable_notify._lock_group(group_name)).id;
    IF NOT kept AND NOT durable_notify._is_subscribed(group_name, topics) THEN
        PERFORM durable_notify._block_removal();  -- the group was deleted since
    END IF;
    IF pg_catalog.cardinality(patterns) > 0 THEN
        WITH fresh AS (
            INSERT INTO durable_notify.group_pattern (group_id, pattern)
            SELECT new_group, pg_catalog.unnest(patterns)
            ON CONFLICT DO NOTHING
            RETURNING pattern)
        SELECT pg_catalog.array_agg(DISTINCT t.topic) INTO known
          FROM durable_notify._topics() AS t (topic)
          JOIN fresh f ON t.topic ~ durable_notify._topic_regex(f.pattern);
    END IF;
    PERFORM durable_notify._subscribe_topics(
        new_group,
        ARRAY(SELECT t.topic FROM pg_catalog.unnest(topics) AS t (topic) WHERE t.topic <> ALL (patterns)) || known,
        start_at, since);
    RETURN new_group;
END
$function$;

CREATE FUNCTION durable_notify._is_subscribed(group_name text, topics text[]) RETURNS boolean
LANGUAGE sql STABLE AS $function$
    -- Return whether a group has all of some topics and patterns. Under its lock, and READ COMMITTED,
    -- it stays so.
    SELECT NOT EXISTS (
        SELECT t.topic FROM pg_catalog.unnest(topics) AS t (topic)
        EXCEPT
        SELECT x.topic FROM durable_notify.consumer_group g
         CROSS JOIN LATERAL (
               SELECT s.topic FROM durable_notify.subscription s WHERE s.group_id = g.id
                UNION ALL SELECT p.pattern FROM durable_notify.group_pattern p WHERE p.group_id = g.id) AS x
         WHERE g.name = group_name)
$function$;

CALL durable_notify._grantable('subscribe', '{consume}', $$_require('consume', topics, group_name)$$);
