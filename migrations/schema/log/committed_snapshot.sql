CREATE FUNCTION durable_notify._committed_snapshot() RETURNS pg_snapshot
LANGUAGE plpgsql STABLE AS $function$
DECLARE
    seen pg_snapshot := pg_catalog.pg_current_snapshot();
    own xid8 := pg_catalog.pg_current_xact_id_if_assigned();
BEGIN
    -- What has committed by now.
    -- Trap: pg_current_snapshot() leaves its own xid out of the list of running transactions, so that
    -- it looks committed once a younger one has ended.
    -- Trap: on a standby its list is empty, and all that run look committed. So there this returns what
    -- is older than all of them: what has committed since comes a little later.
    IF pg_catalog.pg_is_in_recovery() THEN
        RETURN pg_catalog.format('%1$s:%1$s:', pg_catalog.pg_snapshot_xmin(seen))::pg_snapshot;
    END IF;
    IF own IS NULL OR own >= pg_catalog.pg_snapshot_xmax(seen) THEN
        RETURN seen;
    END IF;
    RETURN (
        SELECT pg_catalog.format(
                   '%s:%s:%s', LEAST(own, pg_catalog.pg_snapshot_xmin(seen)), pg_catalog.pg_snapshot_xmax(seen),
                   pg_catalog.string_agg(running.xid::text, ',' ORDER BY running.xid))::pg_snapshot
          FROM (SELECT pg_catalog.pg_snapshot_xip(seen) UNION ALL SELECT own) AS running (xid));
END
$function$;
