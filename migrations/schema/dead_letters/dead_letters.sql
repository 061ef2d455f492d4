CREATE FUNCTION durable_notify.dead_letters(
    for_group text DEFAULT NULL, for_topic text DEFAULT NULL, ids bigint[] DEFAULT NULL, for_key text DEFAULT NULL,
    error_type text DEFAULT NULL, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL
) RETURNS TABLE (
    group_name text, topic text, message_id bigint, key text, payload jsonb, data bytea, headers jsonb,
    published_at timestamptz, attempt integer, reason text, dead_at timestamptz, error jsonb
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- The dead letters of a group (NULL: of all that the caller may see) that match every condition
    -- that is not NULL. Who only observes sees no payload, no headers, and of an error only its type.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._dead_letters_granted(
            for_group, for_topic, ids, for_key, error_type, since, until);
        RETURN;
    END IF;
    PERFORM durable_notify._check_group(for_group);
    RETURN QUERY
    SELECT g.name, d.topic, d.message_id, d.key, CASE WHEN c.sees THEN d.payload END, CASE WHEN c.sees THEN d.data END,
           CASE WHEN c.sees THEN d.headers END, d.published_at, d.attempt,
           CASE WHEN c.sees THEN d.reason ELSE pg_catalog.split_part(d.reason, ':', 1) END,
           d.dead_at, durable_notify._seen_error(d.error, c.sees)
      FROM durable_notify._filter_dead_letters(for_group, for_topic, ids, for_key, error_type, since, until) AS d
      JOIN durable_notify.subscription s ON s.id = d.subscription_id
      JOIN durable_notify.consumer_group g ON g.id = s.group_id
     CROSS JOIN LATERAL (SELECT durable_notify._sees_content(g.name, d.topic) AS sees) AS c
     ORDER BY g.name, d.topic, d.message_id;
END
$function$;

CALL durable_notify._grantable('dead_letters', '{observe,consume}', $$_require_observe(for_group)$$,
    visible => $$_can_observe(f.group_name, f.topic)$$);
