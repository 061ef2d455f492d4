CREATE FUNCTION durable_notify._reclaim_expired() RETURNS bigint
LANGUAGE plpgsql
SET lock_timeout = '1s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    due bigint[];
    kept bigint[];
BEGIN
    -- Redeliver what expired leases left unsettled, 100 leases at most; returns how many. Claims do so,
    -- too: this is for groups that no consumer claims for.
    due := ARRAY(
        SELECT l.token FROM durable_notify.lease l LEFT JOIN durable_notify.lease_deadline h ON h.token = l.token
         WHERE COALESCE(h.deadline, l.deadline) < pg_catalog.clock_timestamp() - interval '10 seconds'
         ORDER BY l.token LIMIT 100);
    IF pg_catalog.cardinality(due) = 0 THEN
        RETURN 0;
    END IF;
    PERFORM durable_notify._ring(t.topic, '0') FROM (
        SELECT DISTINCT s.topic FROM durable_notify.lease l JOIN durable_notify.subscription s ON s.id = l.subscription_id
         WHERE l.token = ANY (due)) AS t;
    kept := durable_notify._reclaim_leases(due, true, true);
    RETURN pg_catalog.cardinality(due) - pg_catalog.cardinality(kept);
END
$function$;
