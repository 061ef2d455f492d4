CREATE FUNCTION durable_notify._triage(
    subscription durable_notify.subscription, options durable_notify.consumer_group, lease_tokens bigint[],
    let_go integer, INOUT ids bigint[], INOUT attempts integer[], replay_jobs bigint[], OUT keys text[], OUT expired bigint
)
LANGUAGE plpgsql
SET enable_sort = on SET jit = off AS $function$
#variable_conflict use_column
DECLARE
    now_time timestamptz := pg_catalog.clock_timestamp();
    their_keys text[];
    held_back text[];
    sorted record;
    lowest bigint;
    highest bigint;
BEGIN
    -- Of messages read or due, return those that can be delivered now, with what they are kept in order
    -- by. Of the rest, what is too early waits for its time. What is past its expiry is dropped or
    -- becomes a dead letter. What is not the next of its key is parked: a live lease has the key, or
    -- another message of it waits. The first let_go of them are the next of their keys. replay_jobs:
    -- for each, the replay that may cancel it, or NULL.
    SELECT pg_catalog.min(m.id), pg_catalog.max(m.id) INTO lowest, highest FROM pg_catalog.unnest(ids) AS m (id);
    their_keys := ARRAY(
        SELECT DISTINCT durable_notify._ordering_key(options.order_by, o.key)
          FROM pg_catalog.unnest(ids) AS m (id) CROSS JOIN LATERAL durable_notify._message(subscription.topic, m.id, lowest, highest) AS o
         WHERE o.key IS NOT NULL OR options.order_by = 'strict');
    -- Trap: read leases and outcomes first, deferred after. The other way round, a message that is
    -- settled in between is missing from both, and its key is released too early.
    held_back := durable_notify._keys_in_flight(lease_tokens, their_keys, options.order_by);
    held_back := held_back || ARRAY(
        SELECT k.key FROM pg_catalog.unnest(their_keys) AS k (key)
         WHERE EXISTS (SELECT FROM durable_notify.deferred d WHERE d.subscription_id = subscription.id AND d.key = k.key));
    WITH message AS (
        SELECT m.id, m.attempt, m.replay_job, m.ord, o.expires_at <= now_time AS late, o.deliver_at,
               durable_notify._ordering_key(options.order_by, o.key) AS key
          FROM ROWS FROM (pg_catalog.unnest(ids), pg_catalog.unnest(attempts), pg_catalog.unnest(replay_jobs))
               WITH ORDINALITY AS m (id, attempt, replay_job, ord)
         CROSS JOIN LATERAL durable_notify._message(subscription.topic, m.id, lowest, highest) AS o),
    judged AS (
        SELECT m.id, m.attempt, m.replay_job, m.ord, m.key, m.deliver_at,
               CASE WHEN m.late THEN 'expired'
                    WHEN m.deliver_at > now_time AND m.attempt = 1 THEN 'delivery'
                    WHEN h.key IS NOT NULL THEN 'key'
                    ELSE 'goes' END AS state
          FROM message m
          LEFT JOIN (SELECT DISTINCT pg_catalog.unnest(held_back)) AS h (key)
            ON h.key = m.key AND m.ord > _triage.let_go),
    put_off AS (
        INSERT INTO durable_notify.deferred (subscription_id, message_id, due_at, attempt, reason, key, replay_job)
        SELECT subscription.id, j.id, CASE j.state WHEN 'delivery' THEN j.deliver_at ELSE now_time END, j.attempt, j.state,
               CASE j.state WHEN 'key' THEN j.key END, j.replay_job
          FROM judged j WHERE j.state IN ('delivery', 'key'))
    SELECT pg_catalog.array_agg(j.id ORDER BY j.ord) FILTER (WHERE j.state = 'goes') AS ids,
           pg_catalog.array_agg(j.attempt ORDER BY j.ord) FILTER (WHERE j.state = 'goes') AS attempts,
           pg_catalog.array_agg(j.key ORDER BY j.ord) FILTER (WHERE j.state = 'goes') AS keys,
           pg_catalog.count(j.key) FILTER (WHERE j.state = 'goes') > 0 AS keyed,
           pg_catalog.array_agg(j.id) FILTER (WHERE j.state = 'expired') AS late
      INTO sorted FROM judged j;
    IF options.on_expiry = 'dead_letter' THEN
        PERFORM durable_notify._dead_letter(subscription.id, m.id, m.attempt - 1, 'expired')
           FROM ROWS FROM (pg_catalog.unnest(ids), pg_catalog.unnest(attempts)) AS m (id, attempt)
          WHERE m.id = ANY (sorted.late);
    END IF;
    ids := COALESCE(sorted.ids, '{}');
    attempts := COALESCE(sorted.attempts, '{}');
    keys := CASE WHEN sorted.keyed THEN sorted.keys END;
    expired := COALESCE(pg_catalog.cardinality(sorted.late), 0);
END
$function$;
