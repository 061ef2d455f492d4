CREATE FUNCTION durable_notify.retries(
    for_group text DEFAULT NULL, for_topic text DEFAULT NULL, ids bigint[] DEFAULT NULL, for_key text DEFAULT NULL,
    error_type text DEFAULT NULL, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL,
    max_messages bigint DEFAULT NULL
) RETURNS TABLE (
    group_name text, topic text, message_id bigint, key text, payload jsonb, data bytea, headers jsonb,
    published_at timestamptz, attempt integer, max_attempts integer, due_at timestamptz, error jsonb
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- The messages of a group (NULL: of all that the caller may see) that failed and wait for their next
    -- attempt, if they match every condition that is not NULL; the next due first. attempt: how many
    -- attempts there were. error: of the last one. since and until: when they were published.
    -- Who only observes sees no payload, no headers, and of an error only its type.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._retries_granted(
            for_group, for_topic, ids, for_key, error_type, since, until, max_messages);
        RETURN;
    END IF;
    PERFORM durable_notify._check_group(for_group);
    -- Trap: messages are read of those that are returned only, after the limit. So what the caller may
    -- not see is left out before it.
    RETURN QUERY
    WITH chosen AS MATERIALIZED (
        SELECT g.name, s.topic, r.message_id, r.attempt, r.due_at, r.error, g.max_attempts
          FROM durable_notify._filter_retries(for_group, for_topic, ids, for_key, error_type, since, until) AS r
          JOIN durable_notify.subscription s ON s.id = r.subscription_id
          JOIN durable_notify.consumer_group g ON g.id = s.group_id
         WHERE max_messages IS NULL OR (SELECT durable_notify._sees_all_groups()) OR durable_notify._can_observe(g.name, s.topic)
         ORDER BY r.due_at, r.message_id, g.name
         LIMIT max_messages)
    SELECT r.name, r.topic, r.message_id, o.key, CASE WHEN c.sees THEN o.payload END, CASE WHEN c.sees THEN o.data END,
           CASE WHEN c.sees THEN o.headers END, o.created_at, r.attempt - 1, r.max_attempts, r.due_at,
           durable_notify._seen_error(r.error, c.sees)
      FROM chosen AS r
     CROSS JOIN LATERAL durable_notify._message(r.topic, r.message_id, r.message_id, r.message_id) AS o
     CROSS JOIN LATERAL (SELECT durable_notify._sees_content(r.name, r.topic) AS sees) AS c
     ORDER BY r.due_at, r.message_id, r.name;
END
$function$;

CREATE FUNCTION durable_notify._check_group(group_name text) RETURNS void
LANGUAGE plpgsql STABLE STRICT AS $function$
BEGIN
    -- Refuse a group that does not exist.
    IF NOT EXISTS (SELECT FROM durable_notify.consumer_group g WHERE g.name = group_name) THEN
        RAISE EXCEPTION 'there is no consumer group "%"', group_name
            USING ERRCODE = 'DN005', HINT = 'durable_notify.status() lists the groups.';
    END IF;
END
$function$;

CALL durable_notify._grantable('retries', '{observe,consume}', $$_require_observe(for_group)$$,
    visible => $$_can_observe(f.group_name, f.topic)$$);
