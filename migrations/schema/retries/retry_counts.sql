CREATE FUNCTION durable_notify.retry_counts(for_group text DEFAULT NULL, for_topic text DEFAULT NULL) RETURNS TABLE (
    group_name text, topic text, error_type text, messages bigint, max_attempt integer, next_due timestamptz,
    last_due timestamptz, example text
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- How many messages wait for their next attempt, by the type of their last error, the most first.
    -- max_attempt: the most attempts that one of them had. example: what one of the errors says.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._retry_counts_granted(for_group, for_topic);
        RETURN;
    END IF;
    PERFORM durable_notify._check_group(for_group);
    RETURN QUERY
    SELECT g.name, s.topic, d.error ->> 'type', pg_catalog.count(DISTINCT d.message_id), pg_catalog.max(d.attempt) - 1,
           pg_catalog.min(d.due_at), pg_catalog.max(d.due_at), pg_catalog.min(CASE WHEN durable_notify._sees_content(g.name, s.topic) THEN d.error ->> 'message' END)
      FROM durable_notify.deferred d
      JOIN durable_notify.subscription s ON s.id = d.subscription_id
      JOIN durable_notify.consumer_group g ON g.id = s.group_id
     WHERE d.reason = 'retry' AND d.attempt > 1
       AND (for_group IS NULL OR g.name = for_group) AND (for_topic IS NULL OR s.topic = for_topic)
     GROUP BY 1, 2, 3
     ORDER BY 4 DESC, 1, 2, 3;
END
$function$;

CALL durable_notify._grantable('retry_counts', '{observe,consume}', $$_require_observe(for_group)$$,
    visible => $$_can_observe(f.group_name, f.topic)$$);
