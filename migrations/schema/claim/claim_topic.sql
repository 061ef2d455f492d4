CREATE FUNCTION durable_notify._claim_topic(
    options durable_notify.consumer_group, source text, now_snapshot pg_snapshot, max_id bigint, max_messages integer,
    lease interval, owner text
) RETURNS TABLE (
    token bigint, id bigint, topic text, key text, payload jsonb, data bytea, headers jsonb,
    published_at timestamptz, attempt integer, order_key text
)
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    found record;
    pos durable_notify.position;
    new_pos durable_notify.position;
    window_end pg_snapshot;
    start_id bigint;
    low bigint;
    room integer := CASE options.order_by WHEN 'none' THEN max_messages ELSE LEAST(max_messages, options.park_limit) END;
    live bigint[] := '{}';
    batch record;
    ids bigint[];
    keys text[];
    more boolean;
    new_token bigint;
BEGIN
    -- Claim from one topic. claim() holds the group's lock and took now_snapshot under it.
    --
    -- Most claims are ordinary, and a few statements do: nothing waits, no lease has expired, and no
    -- message of the batch is a straggler, has a time, or a key that is held back. All others, and
    -- strict groups, go through _claim_in_full(). An ordinary claim returns what that would:
    -- 1. The position cannot move: its writers hold the group's lock.
    -- 2. The window ends at now_snapshot, or is open. What commits later is not visible in it and has
    --    its place in the next, however low its id.
    -- 3. A key is free if no live lease has it and nothing with a key waits, both by one snapshot: a
    --    settle that turns the one into the other is seen as a whole or not at all.
    SELECT s AS subscription, newest.pos,
           EXISTS (SELECT FROM durable_notify.deferred d
                    WHERE d.subscription_id = s.id AND d.key IS NULL AND d.due_at <= pg_catalog.clock_timestamp())
           OR options.order_by <> 'none' AND EXISTS (
               SELECT FROM durable_notify.deferred d WHERE d.subscription_id = s.id AND d.key IS NOT NULL)
           OR options.order_by = 'strict' AS unusual
      INTO found
      FROM durable_notify.subscription s
     CROSS JOIN LATERAL (
           SELECT q AS pos FROM durable_notify.position q
            WHERE q.subscription_id = s.id ORDER BY q.seq DESC LIMIT 1) AS newest
     WHERE s.group_id = options.id AND s.topic = source;
    IF found.subscription IS NULL THEN
        RAISE EXCEPTION 'group "%" is not subscribed to topic "%"', options.name, source
            USING ERRCODE = 'DN006', HINT = 'durable_notify.subscribe() adds topics to a group.';
    END IF;
    pos := found.pos;
    IF pos.lease_tokens <> '{}' THEN
        live := ARRAY(SELECT l.token FROM durable_notify.lease l WHERE l.token = ANY (pos.lease_tokens) ORDER BY l.token);
    END IF;
    IF NOT found.unusual AND (pos.s1 IS NULL OR pos.p >= pos.h0) AND NOT (live <> '{}' AND durable_notify._has_expired(live)) THEN
        window_end := COALESCE(pos.s1, now_snapshot);
        start_id := GREATEST(pos.h0, pos.p);
        low := GREATEST(0, durable_notify._closed_below(pos.s0) - 1);
        -- One message more than there is room for tells whether the window ends here. Stragglers, as in
        -- _read_window(): without them, and without a message above start_id, there is nothing.
        SELECT pg_catalog.array_agg(m.id) AS ids, pg_catalog.max(m.key) IS NOT NULL AND options.order_by = 'key' AS keyed,
               pg_catalog.bool_or(m.deliver_at IS NOT NULL OR m.expires_at IS NOT NULL) AS timed,
               pos.s1 IS NULL AND low < pos.h0 AND (
               (SELECT o.id FROM durable_notify.outbox o
                 WHERE o.topic = source AND o.xid >= pg_catalog.pg_snapshot_xmax(pos.s0)
                   AND o.xid < pg_catalog.pg_snapshot_xmax(window_end) AND o.id > low AND o.id <= pos.h0
                 ORDER BY o.xid, o.id LIMIT 1) IS NOT NULL  -- not EXISTS, which may be planned to read all up to h0
               OR pg_catalog.pg_snapshot_xmin(pos.s0) <> pg_catalog.pg_snapshot_xmax(pos.s0)
                  AND durable_notify._has_stragglers(source, pos.s0, window_end, low, pos.h0)) AS late
          INTO batch
          FROM (SELECT o.id, o.key, o.deliver_at, o.expires_at FROM durable_notify.outbox o
                 WHERE o.topic = source AND o.id > start_id AND o.id <= COALESCE(pos.h1, 9223372036854775807)
                   AND pg_catalog.pg_visible_in_snapshot(o.xid, window_end)
                 ORDER BY o.id
                 LIMIT room + 1) AS m;
        IF batch.ids IS NULL AND NOT batch.late AND pos.s1 IS NULL THEN
            RETURN;  -- nothing found, nothing written
        END IF;
        -- A batch that ends an older window is to be filled from the next one.
        IF NOT batch.late AND NOT batch.timed AND (pos.s1 IS NULL OR pg_catalog.cardinality(batch.ids) >= room) THEN
            ids := batch.ids[:room];
            more := pg_catalog.cardinality(batch.ids) > room;
        END IF;
        IF batch.keyed AND ids IS NOT NULL THEN
            keys := ARRAY(
                SELECT o.key FROM durable_notify.outbox o
                 WHERE o.topic = source AND o.id > start_id AND o.id <= ids[pg_catalog.cardinality(ids)]
                   AND pg_catalog.pg_visible_in_snapshot(o.xid, window_end)
                 ORDER BY o.id);
            IF EXISTS (SELECT FROM durable_notify.deferred d WHERE d.subscription_id = pos.subscription_id AND d.key IS NOT NULL)
               OR durable_notify._keys_in_flight(live, keys, 'key') <> '{}' THEN
                ids := NULL;
            END IF;
        END IF;
    END IF;
    IF ids IS NULL THEN
        RETURN QUERY SELECT * FROM durable_notify._claim_in_full(
            found.subscription, options, now_snapshot, max_id, max_messages, lease, owner);
        RETURN;
    END IF;
    INSERT INTO durable_notify.lease (subscription_id, owner, deadline, ids, attempts, order_by, keys, wake_hint)
    VALUES (pos.subscription_id, _claim_topic.owner, pg_catalog.clock_timestamp() + lease, ids,
            pg_catalog.array_fill(1, ARRAY[pg_catalog.cardinality(ids)]), options.order_by, keys,
            CASE WHEN options.max_in_flight IS NOT NULL THEN '*' WHEN keys IS NOT NULL THEN '0' END)
    RETURNING token INTO new_token;
    new_pos := pos;
    IF more THEN
        new_pos.s1 := window_end;
        new_pos.h1 := COALESCE(pos.h1, durable_notify.last_id(source));
        new_pos.p := ids[pg_catalog.cardinality(ids)];
    ELSE
        new_pos.s0 := window_end;
        new_pos.h0 := ids[pg_catalog.cardinality(ids)];
        new_pos.s1 := NULL;
        new_pos.h1 := NULL;
        new_pos.p := 0;
    END IF;
    PERFORM durable_notify._save_position(pos, new_pos, live || new_token);
    IF pos.lease_tokens <> live THEN
        DELETE FROM durable_notify.lease_deadline h WHERE h.token = ANY (pos.lease_tokens) AND h.token <> ALL (live);
    END IF;
    IF keys IS NOT NULL OR options.exclusive OR options.max_in_flight IS NOT NULL THEN
        PERFORM pg_catalog.set_config('durable_notify.claim_lasts', 'on', true);  -- see claim_alone()
    END IF;
    RETURN QUERY
    SELECT new_token, o.id, o.topic, o.key, o.payload, o.data, o.headers, o.created_at, 1, CASE WHEN keys IS NOT NULL THEN o.key END
      FROM durable_notify.outbox o
     WHERE o.topic = source AND o.id > start_id AND o.id <= ids[pg_catalog.cardinality(ids)]
       AND pg_catalog.pg_visible_in_snapshot(o.xid, window_end)
     ORDER BY o.id;
END
$function$;

CREATE FUNCTION durable_notify._has_expired(tokens bigint[]) RETURNS boolean
LANGUAGE plpgsql STABLE AS $function$
#variable_conflict use_column
BEGIN
    -- Return whether one of some leases has expired.
    RETURN EXISTS (
        SELECT FROM durable_notify.lease l LEFT JOIN durable_notify.lease_deadline h ON h.token = l.token
         WHERE l.token = ANY (tokens) AND COALESCE(h.deadline, l.deadline) <= pg_catalog.clock_timestamp());
END
$function$;
