CREATE FUNCTION durable_notify.progress() RETURNS TABLE (
    topic text, group_name text, last_id bigint, handed_id bigint, expired bigint, asleep bigint
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- How far each group has come in each of its topics: two looks tell how fast, see messages_between().
    -- Topics nobody consumes have a NULL group.
    --
    -- last_id: the topic's highest id; handed_id: the highest that the group was handed, lower after a replay;
    -- expired: how many messages came past their expires_at; asleep: sessions that have armed the topic's
    -- doorbell, of whatever group: they read again when it rings.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._progress_granted();
        RETURN;
    END IF;
    RETURN QUERY
    WITH bells AS MATERIALIZED (
        SELECT l.objid, pg_catalog.count(*) AS armed FROM pg_catalog.pg_locks l
          JOIN pg_catalog.pg_database d ON d.oid = l.database AND d.datname = pg_catalog.current_database()
         WHERE l.locktype = 'advisory' AND l.classid = durable_notify._doorbell_class()::oid AND l.objsubid = 2
           AND l.mode = 'ShareLock' AND l.granted
         GROUP BY 1)
    SELECT COALESCE(s.topic, t.topic), g.name, durable_notify.last_id(COALESCE(s.topic, t.topic)),
           GREATEST(pos.h0, pos.p), pos.expired,
           COALESCE((SELECT b.armed FROM bells b WHERE b.objid
                      = (pg_catalog.hashtext(COALESCE(s.topic, t.topic))::bigint & 4294967295)::oid), 0)
      FROM durable_notify._topics() AS t (topic)
      FULL JOIN durable_notify.subscription s ON s.topic = t.topic
      LEFT JOIN durable_notify.consumer_group g ON g.id = s.group_id
      LEFT JOIN LATERAL (
           SELECT p.h0, p.p, p.expired FROM durable_notify.position p
            WHERE p.subscription_id = s.id ORDER BY p.seq DESC LIMIT 1) AS pos ON s.id IS NOT NULL
     ORDER BY 1, 2;
END
$function$;

CALL durable_notify._grantable('progress', '{observe,consume}', $$_require_observe()$$,
    visible => $$_can_observe(f.group_name, f.topic)$$);
