CREATE FUNCTION durable_notify.never_published(group_name text, topics text[]) RETURNS SETOF text
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_variable
BEGIN
    -- Of the topics of a group, those that have no message, and of which none was ever delivered to it.
    -- A consumer asks when it starts, because a topic may be misspelt. A table that is watched
    -- publishes to its own topic.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._never_published_granted(group_name, topics);
        RETURN;
    END IF;
    RETURN QUERY
    SELECT s.topic FROM durable_notify.consumer_group g
      JOIN durable_notify.subscription s ON s.group_id = g.id AND s.topic = ANY (topics)
     WHERE g.name = group_name
       AND NOT EXISTS (SELECT FROM durable_notify.outbox o WHERE o.topic = s.topic)
       AND NOT EXISTS (SELECT FROM durable_notify.position p WHERE p.subscription_id = s.id AND GREATEST(p.h0, p.p) > 0)
       AND NOT EXISTS (SELECT FROM durable_notify.bridges() b WHERE b.kind = 'watch' AND b.target = s.topic);
END
$function$;

CALL durable_notify._grantable('never_published', '{consume}', $$_require('consume', topics, group_name)$$);
