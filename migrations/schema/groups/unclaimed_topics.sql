CREATE FUNCTION durable_notify.unclaimed_topics(patience interval DEFAULT '1 hour', max_count integer DEFAULT 10000) RETURNS TABLE (
    group_name text, topic text, unread bigint, is_exact boolean, oldest_unread timestamptz, other_topic text
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- Topics of groups that have unread messages, and that no consumer asked for during patience, while
    -- a consumer of the group was connected and other_topic was delivered. Not those of a group that is
    -- stopped or paused, nor what only waits for a lease, a retry or its key.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._unclaimed_topics_granted(patience, max_count);
        RETURN;
    END IF;
    RETURN QUERY
    SELECT g.name, c.topic, c.unread, c.is_exact, c.oldest_unread, later.topic
      FROM durable_notify.status(max_count) AS c
      JOIN durable_notify.consumer_group g ON g.name = c.group_name
      JOIN durable_notify.subscription s ON s.group_id = g.id AND s.topic = c.topic
     CROSS JOIN LATERAL (
           SELECT o.topic FROM durable_notify.subscription o
            WHERE o.group_id = g.id AND o.id <> s.id
              AND durable_notify._passed_over(s, o, c.oldest_unread, patience)
            ORDER BY o.topic LIMIT 1) AS later
     WHERE c.unread > 0 AND c.leased = 0 AND g.paused_at IS NULL
       AND c.oldest_unread <= pg_catalog.clock_timestamp() - patience
       -- A strict group, or one at its park_limit, reads nothing while a message waits.
       AND NOT EXISTS (SELECT FROM durable_notify.deferred d
                        WHERE d.subscription_id = s.id AND d.due_at > pg_catalog.clock_timestamp() - patience)
       AND EXISTS (SELECT FROM pg_catalog.pg_stat_activity a
                    WHERE a.datname = pg_catalog.current_database()
                      AND a.application_name = pg_catalog.left('durable_notify consumer ' || g.name, 60)
                      AND a.backend_start <= pg_catalog.clock_timestamp() - patience)
     ORDER BY 1, 2;
END
$function$;

CREATE FUNCTION durable_notify._passed_over(
    subscription durable_notify.subscription, other durable_notify.subscription, oldest_unread timestamptz, patience interval
) RETURNS boolean
LANGUAGE plpgsql STABLE AS $function$
#variable_conflict use_column
DECLARE
    last durable_notify.outbox;
    earlier durable_notify.outbox;
    next_xid bigint := pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint;
BEGIN
    -- Return whether a group was delivered messages of another topic while it was delivered none of this
    -- one, for as long as patience, although it had unread ones.
    last := durable_notify._last_upto(other.topic, (
        SELECT GREATEST(p.h0, p.p) FROM durable_notify.position p
         WHERE p.subscription_id = other.id ORDER BY p.seq DESC LIMIT 1));
    IF last.created_at IS NULL OR last.created_at < oldest_unread + patience THEN
        RETURN false;
    END IF;
    earlier := durable_notify._last_before(other.topic, last.id, last.created_at - patience);
    IF earlier.id IS NULL THEN
        RETURN false;  -- the other topic is too young to tell
    END IF;
    -- A position is a new row whenever it moves: its xmin tells whether this one has moved since. xmin
    -- has no epoch; so compare how long ago.
    RETURN (
        SELECT pg_catalog.mod(pg_catalog.mod(next_xid, 4294967296) + 4294967296 - p.xmin::text::bigint, 4294967296)
               > next_xid - earlier.xid::text::bigint
          FROM durable_notify.position p
         WHERE p.subscription_id = subscription.id ORDER BY p.seq DESC LIMIT 1);
END
$function$;

CREATE FUNCTION durable_notify._last_upto(topic text, last_id bigint) RETURNS durable_notify.outbox
LANGUAGE sql STABLE AS $function$
    -- The last message of a topic up to an id.
    SELECT o FROM durable_notify.outbox o
     WHERE o.topic = _last_upto.topic AND o.id <= _last_upto.last_id ORDER BY o.id DESC LIMIT 1
$function$;

CREATE FUNCTION durable_notify._last_before(topic text, high bigint, until timestamptz) RETURNS durable_notify.outbox
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $function$
#variable_conflict use_variable
DECLARE
    low bigint := 0;
    middle bigint;
    found durable_notify.outbox;
    best durable_notify.outbox;
BEGIN
    -- About the last message of a topic, up to an id, that was published by a time. By bisection, since
    -- ids and times nearly run in step: a few probes of the index, however long the topic is.
    WHILE low < high LOOP
        middle := low + (high - low + 1) / 2;
        found := durable_notify._last_upto(topic, middle);
        IF found.id IS NULL OR found.created_at <= until THEN
            low := middle;
            best := found;
        ELSE
            high := LEAST(found.id, middle) - 1;
        END IF;
    END LOOP;
    RETURN best;
END
$function$;

CALL durable_notify._grantable('unclaimed_topics', '{observe,consume}', $$_require_observe()$$,
    visible => $$_can_observe(f.group_name, f.topic)$$);
