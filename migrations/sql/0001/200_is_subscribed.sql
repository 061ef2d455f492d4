CREATE FUNCTION durable_notify.is_subscribed(group_name text, topics text[]) RETURNS boolean
LANGUAGE sql STABLE AS $function$
    -- Whether a group has all of some topics and patterns. Under its lock, and READ COMMITTED, it stays so.
    SELECT NOT EXISTS (
        SELECT t.topic FROM pg_catalog.unnest(topics) AS t (topic)
        EXCEPT
        SELECT x.topic FROM durable_notify.consumer_group g
         CROSS JOIN LATERAL (
               SELECT s.topic FROM durable_notify.subscription s WHERE s.group_id = g.id
                UNION ALL SELECT p.pattern FROM durable_notify.pattern p WHERE p.group_id = g.id) AS x
         WHERE g.name = group_name)
$function$;
