CREATE FUNCTION durable_notify.claim(
    group_name text, topics text[], max_messages integer DEFAULT 100, lease interval DEFAULT '30 seconds',
    owner text DEFAULT NULL, consumer text DEFAULT NULL, alone boolean DEFAULT false
) RETURNS TABLE (
    token bigint, id bigint, topic text, key text, payload jsonb, data bytea, headers jsonb,
    published_at timestamptz, attempt integer, order_key text
)
LANGUAGE plpgsql VOLATILE ROWS 100
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_sort = off SET jit = off
SET plan_cache_mode = force_generic_plan SET lock_timeout = '5s'
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    group_id integer;
    is_free boolean;
    options durable_notify.consumer_group;
    now_snapshot pg_snapshot;
    max_id bigint;
    source text;
    allowed integer := max_messages;
    claimed bigint := 0;
    delivered bigint;
    seen record;
    pos durable_notify.position;
    batch record;
    room integer;
    ids bigint[];
    keys text[];
    lasts boolean := alone IS NOT TRUE;
BEGIN
    -- Deliver up to max_messages messages of some of a group's topics to one consumer, until the
    -- lease's deadline by the database's clock. No rows: there is nothing to deliver now.
    --
    -- Commit at once: other claims of the group wait meanwhile. Each token identifies a lease:
    -- settle(token, ...) ends it, extend() prolongs it, release() gives it back. A busy group is not an
    -- empty one: SQLSTATE 55P03 after 5 seconds.
    -- consumer tells the consumers of an exclusive group apart (default: owner). owner is for people
    -- who look at the leases. order_key: what the group keeps the message in order by, if it keeps
    -- order.
    -- alone: the caller's transaction does nothing else. Then its commit does not wait for the disk, if a
    -- crash of the server may forget it: no key, limit or exclusive consumer depends on it. A forgotten
    -- claim is as if it had not been made, and settling under its token is refused. With keys it must
    -- last: after a crash, a handler that still has a key would not keep others from it.
    -- Trap: after such a crash a sequence could give a token twice, and the first holder would settle
    -- what another group holds; hence the time in the token.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._claim_granted(group_name, topics, max_messages, lease, owner, consumer, alone);
        RETURN;
    END IF;
    IF pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL
       OR pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN
        -- A snapshot leaves its own xid out, so a stale position would be read again.
        RAISE EXCEPTION 'claim() must be in a READ COMMITTED transaction of its own'
            USING ERRCODE = 'DN004', HINT = 'Run it in autocommit mode, or right after BEGIN, and commit.';
    END IF;
    IF max_messages IS NULL OR max_messages NOT BETWEEN 1 AND 10000 OR lease IS NULL OR lease <= '0' THEN
        RAISE EXCEPTION 'claim 1 to 10000 messages for a positive interval, not % for %', max_messages, lease
            USING ERRCODE = '22023';
    END IF;
    -- The group's lock, as _lock_group() takes it.
    SELECT g.id, pg_catalog.pg_try_advisory_xact_lock(1685024361, g.id) INTO group_id, is_free
      FROM durable_notify.consumer_group g WHERE g.name = group_name;
    IF is_free THEN
        LOCK TABLE durable_notify.lock_groups IN ROW EXCLUSIVE MODE;
    ELSE
        group_id := (durable_notify._lock_group(group_name)).id;
    END IF;
    now_snapshot := pg_catalog.pg_current_snapshot();
    IF pg_catalog.cardinality(topics) > 1 THEN
        topics := durable_notify._topics_to_claim(group_id, topics);
    END IF;
    FOREACH source IN ARRAY COALESCE(topics, '{}') LOOP
        -- Most claims are ordinary, and three statements do: nothing waits that may go, no lease has
        -- expired, and no message of the batch is a straggler, has a time, or a key that is held back.
        -- All others, and strict groups, go through _claim_in_full(). An ordinary claim returns what
        -- that would:
        -- 1. The position cannot move: its writers hold the group's lock.
        -- 2. The window ends at now_snapshot, or is open. What commits later is not visible in it and
        --    has its place in the next, however low its id.
        -- 3. A key is free if no live lease has it and nothing with a key waits, both by one snapshot: a
        --    settle that turns the one into the other is seen as a whole or not at all. New leases need
        --    the group's lock.
        -- 4. No row of the window has an id above the last one drawn: that is looked up after the
        --    snapshot. It only spares the partitions above it. A row above it would come later, not
        --    never, since only what is up to h0 counts as delivered.
        SELECT g AS options, q.pos, held.live, held.overdue,
               COALESCE((q.pos).s1, now_snapshot) AS window_end, GREATEST((q.pos).h0, (q.pos).p) AS start_id,
               COALESCE((q.pos).h1, (SELECT d.last_value FROM durable_notify.outbox_id_seq d)) AS last_id,
               EXISTS (SELECT FROM durable_notify.deferred d WHERE d.subscription_id = s.id) AS waits,
               EXISTS (SELECT FROM durable_notify.lease_deadline h WHERE h.token = ANY ((q.pos).lease_tokens)) AS extended
          INTO seen
          FROM durable_notify.consumer_group g
          JOIN durable_notify.subscription s ON s.group_id = g.id
         CROSS JOIN LATERAL (
               SELECT w AS pos FROM durable_notify.position w
                WHERE w.subscription_id = s.id ORDER BY w.seq DESC LIMIT 1) AS q
         CROSS JOIN LATERAL (
               SELECT COALESCE(pg_catalog.array_agg(l.token), '{}') AS live,
                      pg_catalog.bool_or(l.deadline <= pg_catalog.clock_timestamp()) IS TRUE AS overdue
                 FROM durable_notify.lease l WHERE l.token = ANY ((q.pos).lease_tokens)) AS held
         WHERE g.id = group_id AND g.name = group_name AND s.group_id = group_id AND s.topic = source
           AND ARRAY(SELECT a.xmin = a.xid FROM durable_notify.cluster_identity a) = '{t,t}';
        IF seen.pos IS NULL THEN
            PERFORM durable_notify._lock_group(group_name);  -- says what is wrong with the group, if something is
            RAISE EXCEPTION 'group "%" is not subscribed to topic "%"', group_name, source
                USING ERRCODE = 'DN006', HINT = 'durable_notify.subscribe() adds topics to a group.';
        END IF;
        pos := seen.pos;
        IF options.id IS NULL THEN
            options := seen.options;
            IF options.paused_at IS NOT NULL OR options.exclusive OR options.max_in_flight IS NOT NULL
               OR options.rate_limit IS NOT NULL OR options.order_by = 'strict' THEN
                IF options.paused_at IS NOT NULL
                   OR options.exclusive AND NOT durable_notify._try_activate(options, COALESCE(consumer, owner), lease) THEN
                    RETURN;
                END IF;
                IF options.max_in_flight IS NOT NULL OR options.rate_limit IS NOT NULL THEN
                    allowed := durable_notify._delivery_quota(options, max_messages);
                END IF;
                IF options.order_by = 'strict' THEN
                    max_id := durable_notify._advance_watermark(options.id);
                    now_snapshot := pg_catalog.pg_current_snapshot();  -- after that
                END IF;
            END IF;
        END IF;
        EXIT WHEN claimed >= allowed;
        ids := NULL;
        keys := NULL;
        room := CASE options.order_by WHEN 'none' THEN allowed - claimed ELSE LEAST(allowed - claimed, options.park_limit) END;
        IF options.order_by <> 'strict' AND (pos.s1 IS NULL OR pos.p >= pos.h0)
           AND NOT (seen.waits AND durable_notify._has_due(pos.subscription_id, options.order_by))
           AND NOT ((seen.overdue OR seen.extended) AND durable_notify._has_expired(seen.live)) THEN
            -- One message more than there is room for tells whether the window ends here. Stragglers, as in
            -- _read_window(): without them, and without a message above start_id, there is nothing.
            -- Trap: "id > closed_below - 1" would not spare the partition below, nor the one for all others.
            SELECT (pg_catalog.array_agg(m.id))[:room] AS ids, (pg_catalog.array_agg(m.key))[:room] AS keys,
                   pg_catalog.count(*) > room AS more, pg_catalog.count(m.key) > 0 AS keyed,
                   pg_catalog.bool_or(m.deliver_at IS NOT NULL OR m.expires_at IS NOT NULL) AS timed,
                   pos.s1 IS NULL AND (
                   (SELECT o.id FROM durable_notify.outbox o
                     WHERE o.topic = source AND o.xid >= pg_catalog.pg_snapshot_xmax(pos.s0) AND o.xid < pg_catalog.pg_snapshot_xmax(seen.window_end)
                       AND o.id >= GREATEST(1, durable_notify._closed_below(pos.s0)) AND o.id <= pos.h0
                     ORDER BY o.xid, o.id LIMIT 1) IS NOT NULL  -- not EXISTS, which may be planned to read all up to h0
                   OR pg_catalog.pg_snapshot_xmin(pos.s0) <> pg_catalog.pg_snapshot_xmax(pos.s0)
                      AND durable_notify._has_stragglers(source, pos.s0, seen.window_end, GREATEST(1, durable_notify._closed_below(pos.s0)), pos.h0)) AS late
              INTO batch
              FROM (SELECT o.id, o.key, o.deliver_at, o.expires_at FROM durable_notify.outbox o
                     WHERE o.topic = source AND o.id > seen.start_id AND o.id <= seen.last_id
                       AND pg_catalog.pg_visible_in_snapshot(o.xid, seen.window_end)
                     ORDER BY o.id
                     LIMIT room + 1) AS m;
            CONTINUE WHEN batch.ids IS NULL AND NOT batch.late AND pos.s1 IS NULL;  -- nothing found, nothing written
            -- A batch that ends an older window is to be filled from the next one.
            IF NOT batch.late AND NOT batch.timed AND (pos.s1 IS NULL OR pg_catalog.cardinality(batch.ids) >= room) THEN
                ids := batch.ids;
            END IF;
            IF batch.keyed AND options.order_by = 'key' AND ids IS NOT NULL THEN
                keys := batch.keys;
                IF seen.waits OR seen.live <> '{}' THEN
                    IF EXISTS (SELECT FROM durable_notify.deferred d WHERE d.subscription_id = pos.subscription_id AND d.key IS NOT NULL)
                       OR durable_notify._keys_in_flight(seen.live, keys, 'key') <> '{}' THEN
                        ids := NULL;
                    END IF;
                END IF;
            END IF;
        END IF;
        IF ids IS NULL THEN
            RETURN QUERY SELECT * FROM durable_notify._claim_in_full(
                pos.subscription_id, options, now_snapshot, max_id, (allowed - claimed)::integer, lease, owner);
        ELSE
            RETURN QUERY
            WITH given AS (
                INSERT INTO durable_notify.lease (subscription_id, owner, deadline, ids, attempts, order_by, keys, wake_hint)
                VALUES (pos.subscription_id, claim.owner, pg_catalog.clock_timestamp() + claim.lease, ids,
                        pg_catalog.array_fill(1, ARRAY[pg_catalog.cardinality(ids)]), options.order_by, keys,
                        CASE WHEN options.max_in_flight IS NOT NULL THEN '*' WHEN keys IS NOT NULL THEN '0' END)
                RETURNING token),
            before AS (  -- exactly one row, see _save_position()
                DELETE FROM durable_notify.position p WHERE p.subscription_id = pos.subscription_id AND p.seq = pos.seq),
            after AS (
                INSERT INTO durable_notify.position (subscription_id, seq, s0, h0, s1, h1, p, lease_tokens, expired)
                SELECT pos.subscription_id, pos.seq + 1,
                       CASE WHEN batch.more THEN pos.s0 ELSE seen.window_end END, CASE WHEN batch.more THEN pos.h0 ELSE ids[pg_catalog.cardinality(ids)] END,
                       CASE WHEN batch.more THEN seen.window_end END, CASE WHEN batch.more THEN seen.last_id END,
                       CASE WHEN batch.more THEN ids[pg_catalog.cardinality(ids)] ELSE 0 END, seen.live || g.token, pos.expired
                  FROM given g)
            SELECT (SELECT g.token FROM given g), o.id, o.topic, o.key, o.payload, o.data, o.headers, o.created_at, 1,
                   CASE WHEN keys IS NOT NULL THEN o.key END
              FROM durable_notify.outbox o
             WHERE o.topic = source AND o.id > seen.start_id AND o.id <= ids[pg_catalog.cardinality(ids)]
               AND pg_catalog.pg_visible_in_snapshot(o.xid, seen.window_end)
             ORDER BY o.id;
        END IF;
        GET DIAGNOSTICS delivered = ROW_COUNT;
        claimed := claimed + delivered;
        lasts := lasts OR keys IS NOT NULL;
        IF seen.extended AND ids IS NOT NULL THEN
            DELETE FROM durable_notify.lease_deadline h WHERE h.token = ANY (pos.lease_tokens) AND h.token <> ALL (seen.live);
        END IF;
    END LOOP;
    IF options.rate_limit IS NOT NULL AND claimed > 0 THEN
        UPDATE durable_notify.rate_bucket a SET tokens = a.tokens - claimed WHERE a.group_id = options.id;
    END IF;
    IF NOT lasts AND claimed > 0 AND NOT options.exclusive AND options.max_in_flight IS NULL
       AND COALESCE(pg_catalog.current_setting('durable_notify.claim_lasts', true), '') = '' THEN
        PERFORM pg_catalog.set_config('synchronous_commit', 'off', true);
    END IF;
END
$function$;

CREATE FUNCTION durable_notify._has_due(subscription_id integer, order_by text) RETURNS boolean
LANGUAGE plpgsql STABLE AS $function$
#variable_conflict use_column
BEGIN
    -- Return whether a message that waits may be delivered now, or may hold back what comes after it.
    RETURN EXISTS (
            SELECT FROM durable_notify.deferred d
             WHERE d.subscription_id = _has_due.subscription_id AND d.key IS NULL AND d.due_at <= pg_catalog.clock_timestamp())
        OR _has_due.order_by <> 'none' AND EXISTS (
            SELECT FROM durable_notify.deferred d WHERE d.subscription_id = _has_due.subscription_id AND d.key IS NOT NULL);
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

CALL durable_notify._grantable('claim', '{consume}', $$_require('consume', topics, group_name)$$);
