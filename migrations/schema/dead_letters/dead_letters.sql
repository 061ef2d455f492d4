CREATE FUNCTION durable_notify.dead_letters(
    for_group text DEFAULT NULL, for_topic text DEFAULT NULL, ids bigint[] DEFAULT NULL, for_key text DEFAULT NULL,
    error_type text DEFAULT NULL, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL,
    max_messages bigint DEFAULT NULL, before_at timestamptz DEFAULT NULL, before_id bigint DEFAULT NULL,
    max_scanned bigint DEFAULT NULL
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
    -- max_scanned: look at no more than these, so that it takes milliseconds, whatever matches. If there
    -- may be more, the last row has no group, and its dead_at and message_id are those to continue before.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._dead_letters_granted(
            for_group, for_topic, ids, for_key, error_type, since, until, max_messages, before_at, before_id, max_scanned);
        RETURN;
    END IF;
    PERFORM durable_notify._check_group(for_group);
    -- Trap: payloads are read of those that are returned only. What the caller may not see is left out
    -- before the limit: a page with nothing on it would look like the last one.
    RETURN QUERY
    WITH looked_at AS MATERIALIZED (
        SELECT * FROM durable_notify._look_at_dead_letters(for_group, for_topic, since, until, before_at, before_id, max_scanned)),
    visible AS MATERIALIZED (
        SELECT s.id FROM durable_notify.subscription s
          JOIN durable_notify.consumer_group g ON g.id = s.group_id
         WHERE s.id IN (SELECT l.subscription_id FROM looked_at l WHERE l.fits) AND durable_notify._can_observe(g.name, s.topic)),
    chosen AS MATERIALIZED (
        SELECT l.subscription_id, l.message_id, l.seq
          FROM looked_at l
         WHERE l.fits AND ((SELECT durable_notify._sees_all_groups()) OR l.subscription_id IN (SELECT v.id FROM visible v))
           AND (ids IS NULL OR l.message_id = ANY (ids)) AND (for_key IS NULL OR l.key = for_key)
           AND (error_type IS NULL OR l.type = error_type)
         ORDER BY l.dead_at DESC, l.message_id DESC
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
     UNION ALL
    SELECT NULL, NULL, m.message_id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, m.dead_at, NULL
      FROM (SELECT l.dead_at, l.message_id FROM looked_at l ORDER BY l.dead_at, l.message_id LIMIT 1) AS m
     WHERE (SELECT pg_catalog.count(*) FROM looked_at) >= max_scanned
       AND (max_messages IS NULL OR (SELECT pg_catalog.count(*) FROM chosen) < max_messages)
     ORDER BY 1, 2, 3;
END
$function$;

CREATE FUNCTION durable_notify._look_at_dead_letters(
    group_name text, topic text, since timestamptz, until timestamptz, before_at timestamptz, before_id bigint, max_scanned bigint
) RETURNS TABLE (subscription_id integer, message_id bigint, seq bigint, dead_at timestamptz, key text, type text, fits boolean)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
SET plan_cache_mode = force_custom_plan AS $function$
#variable_conflict use_column
DECLARE
    meant integer[];
BEGIN
    -- The keys of the newest dead letters, and whether each is of the group and the topic (NULL: of any).
    -- A group or a topic that has few is looked at as a whole, among however many others; of more than
    -- max_scanned, so many are, of all groups, the newest first.
    IF group_name IS NOT NULL OR topic IS NOT NULL THEN
        meant := ARRAY(SELECT s.id FROM durable_notify.subscription s
                         JOIN durable_notify.consumer_group g ON g.id = s.group_id
                        WHERE (_look_at_dead_letters.group_name IS NULL OR g.name = _look_at_dead_letters.group_name)
                          AND (_look_at_dead_letters.topic IS NULL OR s.topic = _look_at_dead_letters.topic));
        IF max_scanned IS NULL OR max_scanned >= (
               SELECT pg_catalog.count(*) FROM (SELECT FROM durable_notify.dead_letter d
                                                 WHERE d.subscription_id = ANY (meant) LIMIT max_scanned + 1) AS few) THEN
            RETURN QUERY
            SELECT d.subscription_id, d.message_id, d.seq, d.dead_at, d.key, d.error ->> 'type', true
              FROM durable_notify.dead_letter d
             WHERE d.subscription_id = ANY (meant)
               AND (_look_at_dead_letters.since IS NULL OR d.dead_at >= _look_at_dead_letters.since)
               AND (_look_at_dead_letters.until IS NULL OR d.dead_at < _look_at_dead_letters.until)
               AND (before_at IS NULL OR (d.dead_at, d.message_id) < (before_at, before_id));
            RETURN;
        END IF;
    END IF;
    RETURN QUERY
    SELECT d.subscription_id, d.message_id, d.seq, d.dead_at, d.key, d.error ->> 'type',
           meant IS NULL OR d.subscription_id = ANY (meant)
      FROM durable_notify.dead_letter d
     WHERE (_look_at_dead_letters.since IS NULL OR d.dead_at >= _look_at_dead_letters.since)
       AND (_look_at_dead_letters.until IS NULL OR d.dead_at < _look_at_dead_letters.until)
       AND (before_at IS NULL OR (d.dead_at, d.message_id) < (before_at, before_id))
     ORDER BY d.dead_at DESC, d.message_id DESC LIMIT max_scanned;
END
$function$;

CREATE FUNCTION durable_notify._sees_all_groups() RETURNS boolean
LANGUAGE sql STABLE AS $function$
    -- Return whether the caller is the owner, or observes everything; also within a twin.
    SELECT pg_catalog.has_table_privilege(durable_notify._calling_role(), 'durable_notify.outbox'::regclass, 'TRUNCATE')
        OR durable_notify._has_grant('observe', NULL, NULL)
$function$;

CALL durable_notify._grantable('dead_letters', '{observe,consume}', $$_require_observe(for_group)$$,
    visible => $$_can_observe(f.group_name, f.topic) OR f.group_name IS NULL$$);
