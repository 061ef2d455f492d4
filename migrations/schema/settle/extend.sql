CREATE FUNCTION durable_notify.extend(tokens bigint[], lease interval) RETURNS SETOF bigint
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    since timestamptz := pg_catalog.clock_timestamp();
    extended bigint[];
    held bigint;
BEGIN
    -- Move the deadlines of leases to that long from now by the database's clock; returns the tokens of
    -- these leases. A token that is not returned was superseded or settled, or an open transaction is
    -- doing so.
    --
    -- No claim reclaims a lease while this has locked its row. Trap: a token that is only read may
    -- belong to a lease that a claim reclaims, and has not committed yet. Such a lock usually lasts for
    -- a moment, and this waits that long. But one lease that a handler settles in a long transaction
    -- must not hold up the others.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._extend_granted(tokens, lease);
        RETURN;
    END IF;
    WITH held AS (
        SELECT l.token FROM durable_notify.lease l WHERE l.token = ANY (tokens) ORDER BY l.token FOR KEY SHARE SKIP LOCKED),
    beaten AS (
        INSERT INTO durable_notify.lease_deadline (token, deadline)
        SELECT h.token, pg_catalog.clock_timestamp() + lease FROM held h
        ON CONFLICT ON CONSTRAINT lease_deadline_pkey DO UPDATE SET deadline = EXCLUDED.deadline
        RETURNING token)
    SELECT COALESCE(pg_catalog.array_agg(b.token ORDER BY b.token), '{}') INTO extended FROM beaten b;
    FOR held IN
        SELECT l.token FROM durable_notify.lease l WHERE l.token = ANY (tokens) AND l.token <> ALL (extended) ORDER BY l.token
    LOOP
        BEGIN
            PERFORM pg_catalog.set_config('lock_timeout', CASE
                WHEN pg_catalog.clock_timestamp() < since + interval '200 ms' THEN '200ms' ELSE '1ms' END, true);
            PERFORM FROM durable_notify.lease l WHERE l.token = held FOR KEY SHARE;
            IF FOUND THEN
                INSERT INTO durable_notify.lease_deadline (token, deadline) VALUES (held, pg_catalog.clock_timestamp() + lease)
                ON CONFLICT ON CONSTRAINT lease_deadline_pkey DO UPDATE SET deadline = EXCLUDED.deadline;
                extended := extended || held;
            END IF;
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;
    RETURN QUERY SELECT e.token FROM pg_catalog.unnest(extended) AS e (token) ORDER BY 1;
END
$function$;

CALL durable_notify._grantable('extend', '{consume}', $$_require('consume', NULL, NULL, true)$$, next => $$
    tokens := durable_notify._visible_leases(tokens);
$$);
