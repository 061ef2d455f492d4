CREATE FUNCTION durable_notify.settle(
    token bigint, acked bigint[] DEFAULT '{}', retried bigint[] DEFAULT '{}', rejected bigint[] DEFAULT '{}',
    retry_delays interval[] DEFAULT NULL, retry_errors text[] DEFAULT NULL, reject_reasons text[] DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    held durable_notify.lease;
    settled bigint[] := acked || retried || rejected;
    whole boolean := false;
    noted bigint := 0;
BEGIN
    -- Settle messages of a lease, in the caller's transaction: acknowledge, send out again after
    -- a delay (counted as an attempt), or reject to the dead letters. Whole or in part.
    --
    -- SQLSTATE DN001: the lease was superseded; DN002: one of the messages was settled before;
    -- DN003: one is not of this lease. Each fails the caller's transaction; nothing has changed.
    -- Stale means superseded, not late: past its deadline a lease holds until it is taken over.
    IF pg_catalog.cardinality(settled) = 0 THEN
        RETURN;
    END IF;
    IF pg_catalog.current_setting('transaction_isolation') = 'read committed' THEN
        -- All at once, in order: no need to note each. Trap: at a higher level it would not see
        -- what others have settled since the transaction's snapshot.
        DELETE FROM durable_notify.lease l WHERE l.token = settle.token AND l.ids = settled
        RETURNING l.* INTO held;
        whole := FOUND;
    END IF;
    IF NOT whole THEN
        -- Two transactions may settle messages of one lease at once; a takeover may not meanwhile.
        -- Trap: a fence by plain read commits with a stale token at REPEATABLE READ.
        SELECT * INTO held FROM durable_notify.lease l WHERE l.token = settle.token FOR KEY SHARE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'lease % was superseded: its messages go, or went, to another consumer', token
                USING ERRCODE = 'DN001', HINT = 'Roll back what was done for these messages.';
        END IF;
        IF EXISTS (SELECT FROM pg_catalog.unnest(settled) AS m (id) WHERE m.id IS NULL OR m.id <> ALL (held.ids)) THEN
            RAISE EXCEPTION 'not all of % are messages of lease %', settled, token USING ERRCODE = 'DN003';
        END IF;
        -- Acks are inserted. Trap: acks that update one lease row deadlock with each other.
        INSERT INTO durable_notify.settlement (token, message_id)
        SELECT settle.token, pg_catalog.unnest(settled)
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS noted = ROW_COUNT;
        IF noted < pg_catalog.cardinality(settled) THEN
            PERFORM durable_notify.raise_settled(token);
        END IF;
        -- Trap: SERIALIZABLE takes this look for a conflict with whoever settles another part. There
        -- a lease settled in parts runs out by its deadline instead; nothing of it comes again.
        IF pg_catalog.current_setting('transaction_isolation') <> 'serializable' THEN
            noted := (SELECT pg_catalog.count(*) FROM durable_notify.settlement t WHERE t.token = settle.token);
        END IF;
    END IF;
    IF pg_catalog.cardinality(retried) > 0 THEN
        PERFORM durable_notify.retry(held, retried, retry_delays, retry_errors);
    END IF;
    PERFORM durable_notify.bury(held.subscription_id, m.id, durable_notify.attempt_of(held, m.id),
                                COALESCE(m.reason, 'rejected'))
       FROM ROWS FROM (pg_catalog.unnest(rejected), pg_catalog.unnest(reject_reasons)) AS m (id, reason);
    IF (whole OR noted = pg_catalog.cardinality(held.ids)) AND durable_notify.drop_lease(token) <> noted THEN
        PERFORM durable_notify.raise_settled(token);
    END IF;
END
$function$;
