CREATE FUNCTION durable_notify.browse(
    topic text, before_id bigint DEFAULT NULL, until timestamptz DEFAULT NULL, for_key text DEFAULT NULL,
    for_headers jsonb DEFAULT NULL, path text[] DEFAULT NULL, value jsonb DEFAULT NULL,
    max_messages integer DEFAULT 50, max_scanned integer DEFAULT 10000, max_bytes integer DEFAULT 20000
) RETURNS TABLE (
    id bigint, key text, payload jsonb, data bytea, headers jsonb, published_at timestamptz, bytes integer,
    continue_before bigint
)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    found bigint;
    lowest bigint;
BEGIN
    -- The newest messages of a topic, before an id or a time, that match every condition that is not
    -- NULL. It takes no lock, and disturbs no consumer.
    --
    -- path and value: the field that the payload has, as of #>, and what it is. bytes: the size of the
    -- payload as stored; if it is above max_bytes, payload and data are NULL.
    -- It looks at max_scanned messages at most. If it may have more, the last row has no id, and
    -- continue_before is the before_id to continue with.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._browse_granted(
            topic, before_id, until, for_key, for_headers, path, value, max_messages, max_scanned, max_bytes);
        RETURN;
    END IF;
    IF max_messages NOT BETWEEN 1 AND 1000 OR max_scanned NOT BETWEEN 1 AND 1000000 THEN
        RAISE EXCEPTION 'browse 1 to 1000 of 1 to 1000000 messages, not % of %', max_messages, max_scanned
            USING ERRCODE = '22023';
    END IF;
    -- 9223372036854775807: from the end.
    before_id := LEAST(COALESCE(before_id, 9223372036854775807), durable_notify._id_before(topic, until) + 1);
    RETURN QUERY
    SELECT o.id, o.key, CASE WHEN o.bytes <= max_bytes THEN o.payload END, CASE WHEN o.bytes <= max_bytes THEN o.data END,
           o.headers, o.created_at, o.bytes, NULL::bigint
      FROM (SELECT m.*, COALESCE(pg_catalog.pg_column_size(m.payload), pg_catalog.pg_column_size(m.data)) AS bytes
              FROM durable_notify.outbox m
             WHERE m.topic = browse.topic AND m.id < browse.before_id
             ORDER BY m.id DESC LIMIT max_scanned) AS o
     WHERE (for_key IS NULL OR o.key = for_key) AND (for_headers IS NULL OR o.headers @> for_headers)
       AND (path IS NULL OR o.payload #> path = value)
     LIMIT max_messages;
    GET DIAGNOSTICS found = ROW_COUNT;
    IF found = max_messages THEN
        RETURN;  -- the caller continues before the last one
    END IF;
    lowest := (SELECT pg_catalog.min(few.id)
                 FROM (SELECT m.id FROM durable_notify.outbox m
                        WHERE m.topic = browse.topic AND m.id < browse.before_id
                        ORDER BY m.id DESC LIMIT max_scanned) AS few);
    IF EXISTS (SELECT FROM durable_notify.outbox m WHERE m.topic = browse.topic AND m.id < lowest) THEN
        continue_before := lowest;
        RETURN NEXT;
    END IF;
END
$function$;

CALL durable_notify._grantable('browse', '{read}', $$_require('read', ARRAY[topic])$$);
