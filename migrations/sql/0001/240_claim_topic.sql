CREATE FUNCTION durable_notify.claim_topic(
    part durable_notify.subscription, now_snapshot pg_snapshot, max_messages integer, lease interval, owner text
) RETURNS TABLE (
    token bigint, id bigint, topic text, key text, payload jsonb, data bytea, headers jsonb,
    published_at timestamptz, attempt integer
)
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    old_place durable_notify.position;
    live bigint[];
    ids bigint[];
    attempts integer[];
    read record;
    new_token bigint;
BEGIN
    -- Claim from one topic. claim() holds the group's lock and took now_snapshot under it, before
    -- its transaction drew an xid: a snapshot leaves its own xid out.
    SELECT * INTO STRICT old_place FROM durable_notify.position p
     WHERE p.subscription_id = part.id
     ORDER BY p.seq DESC
     LIMIT 1;
    -- Trap: leases and outcomes first, deferred after. The other way round a settle in between
    -- shows a message in neither place.
    live := durable_notify.take_over(old_place.live, true, true);
    WITH due AS (
        DELETE FROM durable_notify.deferred d USING (
            SELECT w.message_id FROM durable_notify.deferred w
             WHERE w.subscription_id = part.id AND w.due_at <= pg_catalog.clock_timestamp()
             ORDER BY w.due_at, w.message_id
             LIMIT max_messages
               FOR UPDATE SKIP LOCKED) AS first
         WHERE d.subscription_id = part.id AND d.message_id = first.message_id
        RETURNING d.message_id, d.attempt, d.due_at)
    SELECT COALESCE(pg_catalog.array_agg(due.message_id ORDER BY due.due_at, due.message_id), '{}'),
           COALESCE(pg_catalog.array_agg(due.attempt ORDER BY due.due_at, due.message_id), '{}')
      INTO ids, attempts FROM due;
    SELECT * INTO STRICT read FROM durable_notify.read_window(
        part.topic, old_place, max_messages - pg_catalog.cardinality(ids), now_snapshot);
    IF pg_catalog.cardinality(ids) > 0 THEN
        -- After a replay a message may come from the log and as a retry at once: once a batch.
        read.ids := ARRAY(
            SELECT m.id FROM pg_catalog.unnest(read.ids) WITH ORDINALITY AS m (id, place)
             WHERE m.id <> ALL (ids) ORDER BY m.place);
    END IF;
    ids := ids || read.ids;
    attempts := attempts || pg_catalog.array_fill(1, ARRAY[pg_catalog.cardinality(read.ids)]);
    IF pg_catalog.cardinality(ids) = 0 THEN
        RETURN;  -- nothing found, nothing written
    END IF;
    INSERT INTO durable_notify.lease (subscription_id, owner, deadline, ids, attempts)
    VALUES (part.id, claim_topic.owner, pg_catalog.clock_timestamp() + lease, ids, attempts)
    RETURNING token INTO new_token;
    PERFORM durable_notify.move(old_place, read.place, live || new_token);
    DELETE FROM durable_notify.heartbeat h WHERE h.token = ANY (old_place.live) AND h.token <> ALL (live);
    RETURN QUERY
    SELECT new_token, o.id, o.topic, o.key, o.payload, o.data, o.headers, o.created_at, m.attempt
      FROM ROWS FROM (pg_catalog.unnest(ids), pg_catalog.unnest(attempts))
           WITH ORDINALITY AS m (id, attempt, place)
      JOIN durable_notify.outbox o ON o.topic = part.topic AND o.id = m.id
     ORDER BY m.place;
END
$function$;
