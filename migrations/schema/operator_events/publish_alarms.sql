CREATE FUNCTION durable_notify._publish_alarms() RETURNS bigint
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    found record;
    published bigint := 0;
BEGIN
    -- Publish of which groups messages have begun to fail again and again, or do so no more, and the same
    -- of retention alarms; returns how many. Maintenance calls it once a round: its row makes it one
    -- session at a time. Each beginning and each end is published once, with the row that records it.
    DELETE FROM durable_notify.operator_alarm a
     WHERE NOT EXISTS (SELECT FROM durable_notify.operator_event e WHERE e.kind = a.kind AND e.group_name IN ('', a.group_name));
    FOR found IN
        WITH standing AS MATERIALIZED (
            SELECT 'group_failing' AS kind, f.group_name, f.topic, f.about FROM durable_notify._failing() AS f
            UNION ALL
            SELECT 'retention_alarm', COALESCE(b.group_name, ''), b.topic, pg_catalog.jsonb_build_object('bytes', b.bytes)
              FROM durable_notify.retention_blockers() AS b
             WHERE b.alarm AND EXISTS (
                   SELECT FROM durable_notify.operator_event e
                    WHERE e.kind = 'retention_alarm' AND e.group_name IN ('', b.group_name)))
        SELECT COALESCE(s.kind, a.kind) AS kind, COALESCE(s.group_name, a.group_name) AS group_name,
               COALESCE(s.topic, a.topic) AS topic, s.about
          FROM standing s FULL JOIN durable_notify.operator_alarm a
            ON a.kind = s.kind AND a.group_name = s.group_name AND a.topic = s.topic
         WHERE s.kind IS NULL OR a.kind IS NULL
    LOOP
        IF found.about IS NULL THEN
            DELETE FROM durable_notify.operator_alarm a
             WHERE a.kind = found.kind AND a.group_name = found.group_name AND a.topic = found.topic;
        ELSE
            INSERT INTO durable_notify.operator_alarm (kind, group_name, topic)
            VALUES (found.kind, found.group_name, found.topic);
        END IF;
        published := published + durable_notify._publish_event(
            found.kind, found.group_name, found.topic, COALESCE(found.about, '{}') || pg_catalog.jsonb_build_object(
            'state', CASE WHEN found.about IS NULL THEN 'ended' ELSE 'began' END), rationed => false)::integer;
    END LOOP;
    RETURN published;
END
$function$;

CREATE FUNCTION durable_notify._failing() RETURNS TABLE (group_name text, topic text, about jsonb)
LANGUAGE sql STABLE AS $function$
    -- Groups, of those whose failing is published, with messages that have failed 5 times, or once less
    -- than makes them dead letters, and are to be tried again or are being tried. And with messages that a
    -- consumer has held for an hour: a relay whose endpoint is down waits, and counts no attempt. By topic,
    -- how many of both, and how many are held for so long. And endpoints of webhooks that have failed for 5
    -- minutes, with an empty topic, also after they were paused for that.
    -- Trap: what has failed also counts while a consumer holds it. Otherwise a group would recover at each
    -- attempt.
    SELECT g.name, s.topic, pg_catalog.jsonb_build_object(
               'messages', pg_catalog.count(*), 'attempts', pg_catalog.max(f.failed), 'held', pg_catalog.count(*) FILTER (WHERE f.held))
      FROM durable_notify.consumer_group g
      JOIN durable_notify.subscription s ON s.group_id = g.id
     CROSS JOIN LATERAL (
           SELECT d.message_id, pg_catalog.max(d.attempt) - 1 AS failed, false AS held FROM durable_notify.deferred d
            WHERE d.subscription_id = s.id AND d.reason = 'retry' GROUP BY d.message_id
           UNION ALL
           SELECT m.id, m.attempt - 1, l.claimed_at < pg_catalog.clock_timestamp() - interval '1 hour'
             FROM durable_notify.lease l CROSS JOIN LATERAL ROWS FROM (
                  pg_catalog.unnest(l.ids), pg_catalog.unnest(l.attempts)) AS m (id, attempt)
            WHERE l.subscription_id = s.id
              AND NOT EXISTS (SELECT FROM durable_notify.settlement t WHERE t.token = l.token AND t.message_id = m.id)) AS f
     WHERE EXISTS (SELECT FROM durable_notify.operator_event e WHERE e.kind = 'group_failing' AND e.group_name IN ('', g.name))
       AND (f.held OR f.failed >= LEAST(5, GREATEST(1, g.max_attempts - 1)))
       AND NOT durable_notify._gets_operator_events(g.name)
     GROUP BY g.name, s.topic
    UNION ALL
    SELECT g.name, '', pg_catalog.jsonb_build_object('webhook', true)
      FROM durable_notify.webhook w JOIN durable_notify.consumer_group g ON g.id = w.group_id
     WHERE w.failing_since < pg_catalog.clock_timestamp() - interval '5 minutes'
       AND EXISTS (SELECT FROM durable_notify.operator_event e WHERE e.kind = 'group_failing' AND e.group_name IN ('', g.name))
       AND NOT durable_notify._gets_operator_events(g.name)
$function$;
