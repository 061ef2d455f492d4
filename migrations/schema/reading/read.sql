CREATE FUNCTION durable_notify.read(
    topic text, s0 pg_snapshot, h0 bigint, s1 pg_snapshot, h1 bigint, p bigint, max_messages integer DEFAULT 500
) RETURNS TABLE (
    window_s0 pg_snapshot, window_h0 bigint, window_s1 pg_snapshot, window_h1 bigint,
    expired boolean, id bigint, key text, payload jsonb, data bytea, headers jsonb, published_at timestamptz
)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_sort = off SET jit = off SET plan_cache_mode = force_generic_plan
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    pos durable_notify.position;
    start durable_notify.position;
    found record;
    lowest bigint;
    highest bigint;
BEGIN
    -- Read a topic on from a position, without a group and without writing anything: each message with
    -- its window; the position after it is that window with the message's id for p. No rows: there is
    -- nothing now, and the position stays as it is. The caller leaves out expired messages.
    --
    -- A batch is from one window, so that the position after each of its messages is known: the current
    -- window first, and when it is at its end the next one, up to now.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._read_granted(topic, s0, h0, s1, h1, p, max_messages);
        RETURN;
    END IF;
    PERFORM durable_notify.log_id();  -- refuses an outbox that came from another cluster
    pos.s0 := read.s0;
    pos.h0 := read.h0;
    pos.s1 := read.s1;
    pos.h1 := read.h1;
    pos.p := COALESCE(read.p, 0);
    FOR _turn IN 1 .. 2 LOOP
        IF pos.s1 IS NULL THEN
            pos.s1 := durable_notify._durable_snapshot(topic);
            pos.h1 := durable_notify.last_id(topic);  -- bounds the scan: nothing higher is in s1
            pos.p := 0;
        END IF;
        start := pos;
        SELECT * INTO STRICT found
          FROM durable_notify._read_window(topic, pos, max_messages, pos.s1, NULL);
        EXIT WHEN pg_catalog.cardinality(found.ids) > 0 OR _turn = 2;
        pos := found.pos;
        IF pos.s1 IS NOT NULL THEN
            RETURN;
        END IF;
    END LOOP;
    SELECT pg_catalog.min(m.id), pg_catalog.max(m.id) INTO lowest, highest FROM pg_catalog.unnest(found.ids) AS m (id);
    RETURN QUERY
    SELECT start.s0, start.h0, start.s1, start.h1,
           COALESCE(o.expires_at <= pg_catalog.clock_timestamp(), false), o.id, o.key, o.payload, o.data, o.headers, o.created_at
      FROM pg_catalog.unnest(found.ids) WITH ORDINALITY AS m (id, ord)
     CROSS JOIN LATERAL durable_notify._message(read.topic, m.id, lowest, highest) AS o
     ORDER BY m.ord;
END
$function$;

CALL durable_notify._grantable('read', '{read}', $$_require('read', ARRAY[topic])$$);
