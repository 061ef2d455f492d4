CREATE FUNCTION durable_notify._filter_retries(
    group_name text, topic text, ids bigint[], key text, error_type text, since timestamptz, until timestamptz
) RETURNS SETOF durable_notify.deferred
LANGUAGE sql STABLE AS $function$
    -- The messages of a group (NULL: of all) that failed and wait for their next attempt, if they match
    -- every condition that is not NULL: a row for each message, that of its highest attempt.
    SELECT DISTINCT ON (d.subscription_id, d.message_id) d.*
      FROM durable_notify.deferred d
      JOIN durable_notify.subscription s ON s.id = d.subscription_id
      JOIN durable_notify.consumer_group g ON g.id = s.group_id
     WHERE d.reason = 'retry' AND d.attempt > 1
       AND (_filter_retries.group_name IS NULL OR g.name = _filter_retries.group_name)
       AND (_filter_retries.topic IS NULL OR s.topic = _filter_retries.topic)
       AND (_filter_retries.ids IS NULL OR d.message_id = ANY (_filter_retries.ids))
       AND (_filter_retries.error_type IS NULL OR d.error ->> 'type' = _filter_retries.error_type)
       AND (pg_catalog.num_nonnulls(_filter_retries.key, _filter_retries.since, _filter_retries.until) = 0
            OR EXISTS (SELECT FROM durable_notify._message(s.topic, d.message_id, d.message_id, d.message_id) AS o
                        WHERE (_filter_retries.key IS NULL OR o.key = _filter_retries.key)
                          AND (_filter_retries.since IS NULL OR o.created_at >= _filter_retries.since)
                          AND (_filter_retries.until IS NULL OR o.created_at < _filter_retries.until)))
     ORDER BY d.subscription_id, d.message_id, d.attempt DESC, d.due_at
$function$;

CREATE FUNCTION durable_notify._lock_retries(
    action text, group_name text, topic text, ids bigint[], key text, error_type text, since timestamptz, until timestamptz,
    everything boolean, why text
) RETURNS durable_notify.deferred[]
LANGUAGE plpgsql AS $function$
#variable_conflict use_variable
DECLARE
    chosen durable_notify.deferred[];
BEGIN
    -- Return the retries that are meant, and audit what is done to them. Under the group's lock, which
    -- this takes, no claim removes them.
    IF NOT everything AND pg_catalog.num_nonnulls(topic, ids, key, error_type, since, until) = 0 THEN
        RAISE EXCEPTION 'no condition says which retries of group "%" are meant', group_name
            USING ERRCODE = '22023', HINT = 'Give a condition, or everything => true.';
    END IF;
    PERFORM durable_notify._lock_group(group_name);
    chosen := ARRAY(SELECT r FROM durable_notify._filter_retries(group_name, topic, ids, key, error_type, since, until) AS r);
    PERFORM durable_notify._record_audit(
                action, group_name, pg_catalog.jsonb_build_object('ids', pg_catalog.jsonb_agg(c.message_id)), s.topic,
                pg_catalog.count(*), why)
       FROM pg_catalog.unnest(chosen) AS c JOIN durable_notify.subscription s ON s.id = c.subscription_id
      GROUP BY s.topic;
    -- Whatever makes a message deliverable rings: a new due time, or a key that is free.
    PERFORM durable_notify._ring(s.topic, '0')
       FROM durable_notify.subscription s
      WHERE s.id IN (SELECT c.subscription_id FROM pg_catalog.unnest(chosen) AS c);
    RETURN chosen;
END
$function$;
