CREATE FUNCTION durable_notify.dead_letters(
    for_group text DEFAULT NULL, for_topic text DEFAULT NULL, ids bigint[] DEFAULT NULL, for_key text DEFAULT NULL,
    error_type text DEFAULT NULL, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL,
    max_messages bigint DEFAULT NULL, before_at timestamptz DEFAULT NULL, before_id bigint DEFAULT NULL
) RETURNS TABLE (
    group_name text, topic text, message_id bigint, key text, payload jsonb, data bytea, headers jsonb,
    published_at timestamptz, attempt integer, reason text, dead_at timestamptz, error jsonb
)
LANGUAGE plpgsql STABLE
SET jit = off SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- The dead letters of a group (NULL: of all that the caller may see) that match every condition
    -- that is not NULL. Who only observes sees no payload, no headers, and of an error only its type.
    -- max_messages: no more than these, the newest; before_at, before_id: those that died before that
    -- moment, or at that moment with a lower id.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._dead_letters_granted(
            for_group, for_topic, ids, for_key, error_type, since, until, max_messages, before_at, before_id);
        RETURN;
    END IF;
    PERFORM durable_notify._check_group(for_group);
    -- Trap: payloads are read of those that are returned only. What the caller may not see is left out
    -- before the limit: a page with nothing on it would look like the last one.
    RETURN QUERY
    WITH chosen AS (
        SELECT d.subscription_id, d.message_id, d.seq
          FROM durable_notify._filter_dead_letters(for_group, for_topic, ids, for_key, error_type, since, until) AS d
          JOIN durable_notify.subscription s ON s.id = d.subscription_id
          JOIN durable_notify.consumer_group g ON g.id = s.group_id
         WHERE (before_at IS NULL OR (d.dead_at, d.message_id) < (before_at, before_id))
           AND (max_messages IS NULL OR (SELECT durable_notify._sees_all_groups())
                OR durable_notify._can_observe(g.name, d.topic))
         ORDER BY d.dead_at DESC, d.message_id DESC
         LIMIT max_messages)
    SELECT g.name, d.topic, d.message_id, d.key, CASE WHEN c.sees THEN d.payload END, CASE WHEN c.sees THEN d.data END,
           CASE WHEN c.sees THEN d.headers END, d.published_at, d.attempt,
           CASE WHEN c.sees THEN d.reason ELSE pg_catalog.split_part(d.reason, ':', 1) END,
           d.dead_at, durable_notify._seen_error(d.error, c.sees)
      FROM chosen
      JOIN durable_notify.dead_letter d USING (subscription_id, message_id, seq)
      JOIN durable_notify.subscription s ON s.id = d.subscription_id
      JOIN durable_notify.consumer_group g ON g.id = s.group_id
     CROSS JOIN LATERAL (SELECT durable_notify._sees_content(g.name, d.topic) AS sees OFFSET 0) AS c
     ORDER BY g.name, d.topic, d.message_id;
END
$function$;

CREATE FUNCTION durable_notify._sees_all_groups() RETURNS boolean
LANGUAGE sql STABLE AS $function$
    -- Return whether the caller is the owner, or observes everything; also within a twin.
    SELECT pg_catalog.has_table_privilege(durable_notify._calling_role(), 'durable_notify.outbox'::regclass, 'TRUNCATE')
        OR durable_notify._has_grant('observe', NULL, NULL)
$function$;

CALL durable_notify._grantable('dead_letters', '{observe,consume}', $$_require_observe(for_group)$$,
    visible => $$_can_observe(f.group_name, f.topic)$$);
