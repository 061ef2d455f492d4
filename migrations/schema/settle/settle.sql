CREATE FUNCTION durable_notify.settle(
    token bigint, acked bigint[] DEFAULT '{}', retried bigint[] DEFAULT '{}', rejected bigint[] DEFAULT '{}',
    retry_delays interval[] DEFAULT NULL, retry_errors jsonb[] DEFAULT NULL,
    reject_reasons text[] DEFAULT NULL, reject_errors jsonb[] DEFAULT NULL
) RETURNS bigint[]
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    lease durable_notify.lease;
    options durable_notify.consumer_group;
    settled bigint[] := acked || retried || rejected;
    sent_back bigint[] := '{}';
    whole boolean := false;
    recorded bigint := 0;
BEGIN
    -- Settle messages of a lease, in the caller's transaction: acknowledge, redeliver after a delay
    -- (counted as an attempt; NULL: as the group backs off), or reject to the dead letters. Whole or in
    -- part. Returns the messages sent back with a retried one of their key.
    --
    -- SQLSTATE DN001: the lease was superseded; DN002: one of the messages was settled before; DN003:
    -- one is not of this lease; DN007: not in the order of its key. Each fails the caller's
    -- transaction; nothing has changed. An error is an object with type, message and traceback.
    -- Stale means superseded, not late: past its deadline a lease holds until it is reclaimed.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._settle_granted(
            token, acked, retried, rejected, retry_delays, retry_errors, reject_reasons, reject_errors);
    END IF;
    IF pg_catalog.cardinality(settled) = 0 THEN
        RETURN sent_back;
    END IF;
    IF pg_catalog.current_setting('transaction_isolation') = 'read committed' THEN
        -- All at once, in order: no need to record each. Trap: at a higher isolation level it would not
        -- see what others have settled since the transaction's snapshot.
        DELETE FROM durable_notify.lease l WHERE l.token = settle.token AND l.ids = settled
        RETURNING l.* INTO lease;
        whole := FOUND;
    END IF;
    IF NOT whole THEN
        -- Two transactions may settle messages of one lease at once; no claim may reclaim it meanwhile.
        -- Trap: a fence by plain read commits with a stale token at REPEATABLE READ.
        SELECT * INTO lease FROM durable_notify.lease l WHERE l.token = settle.token FOR KEY SHARE;
        IF NOT FOUND THEN
            PERFORM durable_notify._raise_lease_lost(token);
        END IF;
        IF EXISTS (SELECT pg_catalog.unnest(settled) EXCEPT SELECT pg_catalog.unnest(lease.ids)) THEN
            RAISE EXCEPTION 'not all of % are messages of lease %', settled, token USING ERRCODE = 'DN003';
        END IF;
        IF lease.keys IS NOT NULL AND pg_catalog.cardinality(retried) > 0 THEN
            sent_back := durable_notify._later_of_key(lease, retried, settled);
        END IF;
        -- Acks are inserted. Trap: acks that update one lease row deadlock with each other.
        recorded := durable_notify._record_settled(token, settled || sent_back);
        -- Trap: SERIALIZABLE takes this look for a conflict with a transaction that settles another
        -- part. At that level a lease settled in parts runs to its deadline instead; none of it is
        -- redelivered.
        IF pg_catalog.current_setting('transaction_isolation') <> 'serializable' THEN
            recorded := (SELECT pg_catalog.count(*) FROM durable_notify.settlement t WHERE t.token = settle.token);
        END IF;
    END IF;
    IF lease.keys IS NOT NULL AND NOT (whole AND pg_catalog.cardinality(retried) = 0) THEN
        PERFORM durable_notify._check_order(lease, acked || rejected, retried);
    END IF;
    IF pg_catalog.cardinality(retried) + pg_catalog.cardinality(rejected) > 0 THEN
        options := durable_notify._lock_ordering(lease.subscription_id);  -- also for _lock_for_erasure()
    END IF;
    IF pg_catalog.cardinality(retried) > 0 THEN
        PERFORM durable_notify._requeue(lease, options, sent_back);
        PERFORM durable_notify._schedule_retry(lease, options, retried, retry_delays, retry_errors);
    END IF;
    IF pg_catalog.cardinality(rejected) > 0 THEN
        PERFORM durable_notify._dead_letter(lease.subscription_id, m.id, t.attempt, COALESCE(m.reason, 'rejected'), m.error)
           FROM ROWS FROM (pg_catalog.unnest(rejected), pg_catalog.unnest(reject_reasons), pg_catalog.unnest(reject_errors))
                AS m (id, reason, error)
           JOIN ROWS FROM (pg_catalog.unnest(lease.ids), pg_catalog.unnest(lease.attempts)) AS t (id, attempt) ON t.id = m.id;
    END IF;
    IF (whole OR recorded = pg_catalog.cardinality(lease.ids)) AND durable_notify._delete_lease(token) <> recorded THEN
        PERFORM durable_notify._raise_already_settled(token);
    END IF;
    IF lease.wake_hint = '*' THEN
        -- Room for the group: consumers of its other topics may have waited for it.
        PERFORM durable_notify._ring_group(s.group_id) FROM durable_notify.subscription s WHERE s.id = lease.subscription_id;
    ELSIF lease.wake_hint IS NOT NULL OR pg_catalog.cardinality(retried) > 0 THEN
        -- Whatever makes a message deliverable rings: a key that is free, a new due time.
        PERFORM durable_notify._ring(s.topic, '0')
           FROM durable_notify.subscription s WHERE s.id = lease.subscription_id;
    END IF;
    RETURN sent_back;
END
$function$;

CREATE FUNCTION durable_notify._later_of_key(lease durable_notify.lease, retried bigint[], settled bigint[])
RETURNS bigint[]
LANGUAGE plpgsql STABLE STRICT AS $function$
#variable_conflict use_column
BEGIN
    -- Messages of a lease that come after a retried one of their key and are not settled.
    RETURN ARRAY(
        SELECT m.id
          FROM ROWS FROM (pg_catalog.unnest(lease.ids), pg_catalog.unnest(lease.keys)) WITH ORDINALITY AS m (id, key, ord)
          JOIN (SELECT r.key, pg_catalog.min(r.ord) AS ord
                  FROM ROWS FROM (pg_catalog.unnest(lease.ids), pg_catalog.unnest(lease.keys))
                       WITH ORDINALITY AS r (id, key, ord)
                 WHERE r.id IN (SELECT pg_catalog.unnest(retried)) GROUP BY r.key) AS first
            ON first.key = m.key AND m.ord > first.ord
         WHERE m.id NOT IN (SELECT pg_catalog.unnest(settled))
           AND m.id NOT IN (SELECT t.message_id FROM durable_notify.settlement t WHERE t.token = lease.token)
         ORDER BY m.ord);
END
$function$;

CREATE FUNCTION durable_notify._record_settled(token bigint, ids bigint[]) RETURNS bigint
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    recorded bigint;
BEGIN
    -- Record messages of a lease as settled, or fail if one of them was before.
    INSERT INTO durable_notify.settlement (token, message_id)
    SELECT _record_settled.token, pg_catalog.unnest(ids)
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS recorded = ROW_COUNT;
    IF recorded < pg_catalog.cardinality(ids) THEN
        PERFORM durable_notify._raise_already_settled(token);
    END IF;
    RETURN recorded;
END
$function$;

CREATE FUNCTION durable_notify._check_order(lease durable_notify.lease, done bigint[], retried bigint[]) RETURNS void
LANGUAGE plpgsql STABLE AS $function$
#variable_conflict use_column
DECLARE
    first integer;
    last integer;
    early bigint;
BEGIN
    -- Refuse to settle a message while an earlier one of its key, in the same lease, is not settled.
    --
    -- The first message that is not settled, and the last one that is to be: only what is between
    -- them can be out of order. Keys are compared there alone; most settle in the lease's order. Trap:
    -- = ANY (array) compares with each element, for each message of the lease. IN (SELECT ...) hashes.
    SELECT pg_catalog.min(a.ord) FILTER (WHERE a.id IN (SELECT pg_catalog.unnest(retried))
               OR a.id NOT IN (SELECT pg_catalog.unnest(done)) AND a.id NOT IN (
                  SELECT t.message_id FROM durable_notify.settlement t WHERE t.token = lease.token)),
           pg_catalog.max(a.ord) FILTER (WHERE a.id IN (SELECT pg_catalog.unnest(done)))
      INTO first, last
      FROM pg_catalog.unnest(lease.ids) WITH ORDINALITY AS a (id, ord);
    IF last > first THEN
        early := durable_notify._out_of_order(lease.token, lease.ids[first:last], lease.keys[first:last], done, retried);
    END IF;
    IF early IS NOT NULL THEN
        RAISE EXCEPTION 'message % is not the next of its key: an earlier one in lease % is not settled', early, lease.token
            USING ERRCODE = 'DN007', HINT = 'Settle messages of one key in order, or retry the earlier one.';
    END IF;
END
$function$;

CREATE FUNCTION durable_notify._out_of_order(token bigint, ids bigint[], keys text[], done bigint[], retried bigint[])
RETURNS bigint
LANGUAGE plpgsql STABLE AS $function$
#variable_conflict use_column
BEGIN
    -- One of these messages of a lease that is to be settled after one of its key that is not; NULL: none.
    RETURN (
        SELECT m.id
          FROM (SELECT a.key, pg_catalog.min(a.ord) AS ord
                  FROM ROWS FROM (pg_catalog.unnest(ids), pg_catalog.unnest(keys)) WITH ORDINALITY AS a (id, key, ord)
                 WHERE a.id IN (SELECT pg_catalog.unnest(retried))
                    OR a.id NOT IN (SELECT pg_catalog.unnest(done)) AND a.id NOT IN (
                       SELECT t.message_id FROM durable_notify.settlement t WHERE t.token = _out_of_order.token)
                 GROUP BY a.key) AS unsettled
          JOIN ROWS FROM (pg_catalog.unnest(ids), pg_catalog.unnest(keys)) WITH ORDINALITY AS m (id, key, ord)
            ON m.key = unsettled.key AND m.ord > unsettled.ord
         WHERE m.id IN (SELECT pg_catalog.unnest(done))
         LIMIT 1);
END
$function$;

CREATE FUNCTION durable_notify._requeue(
    lease durable_notify.lease, options durable_notify.consumer_group, ids bigint[]
) RETURNS void
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
BEGIN
    -- Have messages of a lease wait for one of their key that is retried; this is not an attempt of
    -- theirs. One that was erased meanwhile is gone.
    INSERT INTO durable_notify.deferred (subscription_id, message_id, due_at, attempt, reason, key)
    SELECT lease.subscription_id, m.id, pg_catalog.clock_timestamp(), m.attempt,
           CASE WHEN m.key IS NULL THEN 'retry' ELSE 'key' END, m.key
      FROM ROWS FROM (pg_catalog.unnest(lease.ids), pg_catalog.unnest(lease.attempts),
                      pg_catalog.unnest(durable_notify._lease_keys(lease, options.order_by)))
           AS m (id, attempt, key)
      JOIN durable_notify.subscription s ON s.id = lease.subscription_id
     CROSS JOIN LATERAL durable_notify._message(s.topic, m.id, m.id, m.id) AS o
     WHERE m.id IN (SELECT pg_catalog.unnest(_requeue.ids));
END
$function$;

CALL durable_notify._grantable('settle', '{consume}', $$_require('consume', NULL, NULL, true)$$, next => $$
    IF durable_notify._visible_leases(ARRAY[token]) = '{}' THEN
        PERFORM durable_notify._raise_lease_lost(token);
    END IF;
$$);
