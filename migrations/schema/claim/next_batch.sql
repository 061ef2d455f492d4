CREATE FUNCTION durable_notify._next_batch(
    subscription durable_notify.subscription, options durable_notify.consumer_group, lease_tokens bigint[],
    INOUT pos durable_notify.position, now_snapshot pg_snapshot, max_id bigint, max_messages integer,
    OUT ids bigint[], OUT attempts integer[], OUT keys text[], OUT moved boolean, OUT more boolean
)
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    next_ids bigint[] := '{}';
    waited bigint[] := '{}';
    jobs bigint[] := '{}';
    read_attempts integer[];
    read record;
    sorted record;
    room integer;
BEGIN
    -- Up to max_messages messages that can go to a consumer, the position in the outbox after them, and
    -- whether the position moved and there may be more. What waited for its turn or time comes first,
    -- then what follows in the outbox.
    room := CASE options.order_by WHEN 'none' THEN max_messages ELSE LEAST(max_messages, options.park_limit) END;
    attempts := '{}';
    IF EXISTS (SELECT FROM durable_notify.deferred d WHERE d.subscription_id = subscription.id) THEN
        IF options.order_by <> 'none'
           AND EXISTS (SELECT FROM durable_notify.deferred d WHERE d.subscription_id = subscription.id AND d.key IS NOT NULL) THEN
            next_ids := durable_notify._unpark(subscription.id, lease_tokens, max_messages, options.order_by);
        END IF;
        -- And what holds back nothing and is due, the earliest first. Trap: take both at once. One
        -- after the other, a message that begins to wait for a second reason in between is in both, and
        -- twice in its lease.
        SELECT d.ids, d.attempts, d.replay_jobs INTO STRICT waited, attempts, jobs
          FROM durable_notify._take_deferred(subscription.id, next_ids || ARRAY(
               SELECT w.message_id FROM durable_notify.deferred w
                WHERE w.subscription_id = subscription.id AND w.key IS NULL AND w.due_at <= pg_catalog.clock_timestamp()
                ORDER BY w.due_at, w.message_id
                LIMIT max_messages - pg_catalog.cardinality(next_ids))) d;
        room := durable_notify._read_quota(subscription.id, options, max_messages - pg_catalog.cardinality(waited));
    END IF;
    SELECT * INTO STRICT read FROM durable_notify._read_window(subscription.topic, pos, room, now_snapshot, max_id);
    pos := read.pos;
    more := pg_catalog.cardinality(read.ids) > 0 OR pg_catalog.cardinality(waited) > pg_catalog.cardinality(next_ids);
    moved := pg_catalog.cardinality(read.ids) > 0;
    read_attempts := pg_catalog.array_fill(1, ARRAY[pg_catalog.cardinality(read.ids)]);
    IF waited && read.ids THEN
        -- After a rewind, a message may come from the outbox and as a retry at once. Deliver it once a
        -- batch, as what the outbox brings, so that no replay can cancel it. Trap: as a retry it would
        -- come before the redelivered messages of its key, and not after them.
        read_attempts := ARRAY(
            SELECT COALESCE(w.attempt, 1) FROM pg_catalog.unnest(read.ids) WITH ORDINALITY AS m (id, ord)
              LEFT JOIN ROWS FROM (pg_catalog.unnest(waited), pg_catalog.unnest(attempts)) AS w (id, attempt) ON w.id = m.id
             ORDER BY m.ord);
        next_ids := ARRAY(SELECT n.id FROM pg_catalog.unnest(next_ids) AS n (id) WHERE n.id <> ALL (read.ids));
        SELECT COALESCE(pg_catalog.array_agg(w.id ORDER BY w.ord), '{}'),
               COALESCE(pg_catalog.array_agg(w.attempt ORDER BY w.ord), '{}'),
               COALESCE(pg_catalog.array_agg(w.job ORDER BY w.ord), '{}')
          INTO STRICT waited, attempts, jobs
          FROM ROWS FROM (pg_catalog.unnest(waited), pg_catalog.unnest(attempts), pg_catalog.unnest(jobs))
               WITH ORDINALITY AS w (id, attempt, job, ord)
         WHERE w.id <> ALL (read.ids);
    END IF;
    ids := waited || read.ids;
    attempts := attempts || read_attempts;
    IF waited = '{}' AND NOT read.timed
       AND (options.order_by = 'none' OR options.order_by = 'key' AND NOT read.keyed) THEN
        RETURN;  -- as for most messages: none needs a closer look
    END IF;
    SELECT * INTO STRICT sorted FROM durable_notify._triage(
        subscription, options, lease_tokens, pg_catalog.cardinality(next_ids), ids, attempts, jobs);
    ids := sorted.ids;
    attempts := sorted.attempts;
    keys := sorted.keys;
    pos.expired := pos.expired + sorted.expired;
    moved := moved OR sorted.expired > 0;
END
$function$;
