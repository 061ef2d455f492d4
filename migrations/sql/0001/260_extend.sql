CREATE FUNCTION durable_notify.extend(tokens bigint[], lease interval) RETURNS SETOF bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- Move the deadlines of leases to that long from now by the database's clock; returns the
    -- tokens still held. A token that does not come back was superseded or settled.
    --
    -- Trap: a lease being settled in somebody's open transaction is locked; to wait for it would
    -- hold up the heartbeat of all others. SKIP LOCKED: it cannot be taken over meanwhile either.
    IF NOT durable_notify.has_own_rights() THEN
        RETURN QUERY SELECT * FROM durable_notify.extend_granted(tokens, lease);
        RETURN;
    END IF;
    INSERT INTO durable_notify.heartbeat (token, deadline)
    SELECT held.token, pg_catalog.clock_timestamp() + lease
      FROM (SELECT l.token FROM durable_notify.lease l WHERE l.token = ANY (tokens)
             ORDER BY l.token FOR KEY SHARE SKIP LOCKED) AS held
    ON CONFLICT (token) DO UPDATE SET deadline = EXCLUDED.deadline;
    RETURN QUERY SELECT l.token FROM durable_notify.lease l WHERE l.token = ANY (tokens) ORDER BY l.token;
END
$function$;
