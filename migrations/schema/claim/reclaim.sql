CREATE FUNCTION durable_notify._reclaim_leases(tokens bigint[], only_expired boolean, counted boolean) RETURNS bigint[]
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    ended durable_notify.lease;
    options durable_notify.consumer_group;
    now_time timestamptz := pg_catalog.clock_timestamp();  -- one for all: they keep their order
BEGIN
    -- End leases and redeliver what they left unsettled; returns the tokens of leases that it could not
    -- end.
    --
    -- Trap: a handler that acknowledges in its own transaction holds the lease row until it commits,
    -- and a claim must never wait for it: SKIP LOCKED. Such a lease is late but not superseded; its
    -- settle wins if it commits.
    IF pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN
        -- A frozen snapshot leaves out what was settled since: that would be redelivered.
        RAISE EXCEPTION 'leases must be given back in a READ COMMITTED transaction'
            USING ERRCODE = '22023', HINT = 'Nothing was changed.';
    END IF;
    FOR ended IN
        SELECT l.* FROM durable_notify.lease l
         WHERE l.token = ANY (tokens)
           AND NOT (only_expired AND now_time < COALESCE(
                    (SELECT h.deadline FROM durable_notify.lease_deadline h WHERE h.token = l.token), l.deadline))
         ORDER BY l.token
           FOR UPDATE OF l SKIP LOCKED
    LOOP
        -- Read again under the lock: it may have been extended since the loop's query began.
        CONTINUE WHEN only_expired AND EXISTS (
            SELECT FROM durable_notify.lease_deadline h WHERE h.token = ended.token AND h.deadline > now_time);
        options := durable_notify._lock_ordering(ended.subscription_id);
        -- A new statement: it sees every settlement that was committed before the row was locked.
        PERFORM durable_notify._defer(
            ended.subscription_id, m.id, m.attempt + counted::integer, now_time, m.key,
            CASE WHEN counted THEN pg_catalog.jsonb_build_object(
                'type', 'LeaseEnded',
                'message', pg_catalog.format('attempt %s of %s ended with its lease', m.attempt, ended.owner)) END,
            CASE WHEN counted THEN options.max_attempts END)  -- what does not count as an attempt cannot exceed the limit
           FROM ROWS FROM (pg_catalog.unnest(ended.ids), pg_catalog.unnest(ended.attempts),
                           pg_catalog.unnest(durable_notify._lease_keys(ended, options.order_by)))
                AS m (id, attempt, key)
          WHERE NOT EXISTS (
                SELECT FROM durable_notify.settlement t WHERE t.token = ended.token AND t.message_id = m.id);
        PERFORM durable_notify._delete_lease(ended.token);
    END LOOP;
    RETURN ARRAY(SELECT l.token FROM durable_notify.lease l WHERE l.token = ANY (tokens) ORDER BY l.token);
END
$function$;
