CREATE FUNCTION durable_notify._claim_in_full(
    subscription_id integer, options durable_notify.consumer_group, now_snapshot pg_snapshot, max_id bigint,
    max_messages integer, lease interval, owner text
) RETURNS TABLE (
    token bigint, id bigint, topic text, key text, payload jsonb, data bytea, headers jsonb,
    published_at timestamptz, attempt integer, order_key text
)
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    subscription durable_notify.subscription;
    pos durable_notify.position;
    moved boolean := false;
    old_pos durable_notify.position;
    lease_tokens bigint[];
    batch record;
    new_token bigint;
    lowest bigint;
    highest bigint;
BEGIN
    -- Claim from one topic, whatever it takes; see claim(). now_snapshot was taken under the
    -- group's lock.
    SELECT * INTO STRICT subscription FROM durable_notify.subscription s WHERE s.id = _claim_in_full.subscription_id;
    SELECT * INTO STRICT old_pos FROM durable_notify.position p
     WHERE p.subscription_id = subscription.id
     ORDER BY p.seq DESC
     LIMIT 1;
    -- Trap: read leases and outcomes first, deferred after. The other way round, a message that is
    -- settled in between is missing from both.
    lease_tokens := old_pos.lease_tokens;
    IF lease_tokens <> '{}' THEN
        IF EXISTS (SELECT FROM durable_notify.lease l WHERE l.token = ANY (lease_tokens)) THEN
            lease_tokens := durable_notify._reclaim_leases(lease_tokens, true, true);
        ELSE
            lease_tokens := '{}';
        END IF;
    END IF;
    IF options.order_by = 'strict' AND pg_catalog.cardinality(lease_tokens) > 0 THEN
        RETURN;  -- the whole topic is one key, which a consumer holds
    END IF;
    pos := old_pos;
    IF options.order_by = 'strict' AND NOT durable_notify._has_delivered(subscription.topic, pos) THEN
        -- Trap: after TRUNCATE ... RESTART IDENTITY new ids are below h0. They would be stragglers,
        -- which max_id does not bound.
        pos.h0 := 0;
        pos.s1 := NULL;
    END IF;
    FOR _round IN 1 .. 50 LOOP
        SELECT * INTO STRICT batch
          FROM durable_notify._next_batch(subscription, options, lease_tokens, pos, now_snapshot, max_id, max_messages);
        pos := batch.pos;
        moved := moved OR batch.moved;
        -- It may have deferred everything that it read, and more may follow. If very much does, the
        -- window stays open, and next_due() sends the consumer back at once.
        EXIT WHEN pg_catalog.cardinality(batch.ids) > 0 OR NOT batch.more;
    END LOOP;
    IF pg_catalog.cardinality(batch.ids) > 0 THEN
        INSERT INTO durable_notify.lease (subscription_id, owner, deadline, ids, attempts, order_by, keys, wake_hint)
        VALUES (subscription.id, _claim_in_full.owner, pg_catalog.clock_timestamp() + lease, batch.ids, batch.attempts, options.order_by, batch.keys,
                CASE WHEN options.max_in_flight IS NOT NULL THEN '*' WHEN batch.keys IS NOT NULL THEN '0' END)
        RETURNING token INTO new_token;
    ELSIF NOT moved THEN
        RETURN;  -- nothing found, nothing written
    END IF;
    PERFORM durable_notify._save_position(old_pos, pos, CASE WHEN new_token IS NULL THEN lease_tokens ELSE lease_tokens || new_token END);
    IF old_pos.lease_tokens <> lease_tokens THEN
        DELETE FROM durable_notify.lease_deadline h WHERE h.token = ANY (old_pos.lease_tokens) AND h.token <> ALL (lease_tokens);
    END IF;
    IF batch.keys IS NOT NULL OR options.exclusive OR options.max_in_flight IS NOT NULL THEN
        PERFORM pg_catalog.set_config('durable_notify.claim_lasts', 'on', true);  -- see claim()
    END IF;
    SELECT pg_catalog.min(m.id), pg_catalog.max(m.id) INTO lowest, highest FROM pg_catalog.unnest(batch.ids) AS m (id);
    RETURN QUERY
    SELECT new_token, o.id, o.topic, o.key, o.payload, o.data, o.headers, o.created_at, m.attempt, m.key
      FROM ROWS FROM (pg_catalog.unnest(batch.ids), pg_catalog.unnest(batch.attempts), pg_catalog.unnest(batch.keys))
           WITH ORDINALITY AS m (id, attempt, key, ord)
     CROSS JOIN LATERAL durable_notify._message(subscription.topic, m.id, lowest, highest) AS o
     ORDER BY m.ord;
END
$function$;

CREATE FUNCTION durable_notify._has_delivered(topic text, pos durable_notify.position) RETURNS boolean
LANGUAGE sql STABLE AS $function$
    -- Return whether the outbox still has a message of a topic that was delivered before a position. If
    -- not, it is as good as the position of a new group.
    SELECT (SELECT o.id FROM durable_notify.outbox o
             WHERE o.topic = _has_delivered.topic AND o.id <= GREATEST((pos).h0, (pos).p)
               AND (o.id <= (pos).h0 AND pg_catalog.pg_visible_in_snapshot(o.xid, (pos).s0)
                    OR o.id <= (pos).p AND pg_catalog.pg_visible_in_snapshot(o.xid, (pos).s1))
             ORDER BY o.id DESC LIMIT 1) IS NOT NULL
$function$;
