CREATE FUNCTION durable_notify._stragglers(
    topic text, seen pg_snapshot, max_id pg_snapshot, after_id bigint, last_id bigint, max_ids bigint
) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE STRICT AS $function$
#variable_conflict use_column
BEGIN
    -- Ids in (after_id, last_id], ascending, that are visible in one snapshot and were not in an
    -- earlier one: messages whose transaction outlasted the reading of higher ids.
    --
    -- Their xid is either in the earlier snapshot's list of running transactions (one index probe
    -- each), or at or past its xmax. Trap: the list alone loses messages, since xmax is only the
    -- latest *completed* xid + 1 and transactions past it may be running with rows inserted.
    -- Trap: left to the planner, a big transaction or many writers make this 500 times slower; hence
    -- one LATERAL probe an xid, and the callers' settings: only scans of indexes, nested loops.
    RETURN QUERY
    SELECT s.id FROM (
        (SELECT found.id
           FROM pg_catalog.pg_snapshot_xip(seen) AS running (xid)
          CROSS JOIN LATERAL (
                SELECT o.id FROM durable_notify.outbox o
                 WHERE o.topic = _stragglers.topic
                   -- As rows, which only the one index can look for: see below.
                   AND (o.xid, o.id) > (running.xid, after_id) AND (o.xid, o.id) <= (running.xid, _stragglers.last_id)
                   AND o.id > after_id AND o.id <= _stragglers.last_id  -- prunes partitions
                 ORDER BY o.xid, o.id
                 LIMIT max_ids) found
          WHERE pg_catalog.pg_visible_in_snapshot(running.xid, max_id))
        UNION ALL
        (SELECT o.id FROM durable_notify.outbox o
          WHERE o.topic = _stragglers.topic
            AND o.xid >= pg_catalog.pg_snapshot_xmax(seen) AND o.xid < pg_catalog.pg_snapshot_xmax(max_id)
            AND o.id > after_id AND o.id <= _stragglers.last_id
            AND pg_catalog.pg_visible_in_snapshot(o.xid, max_id)
          -- Trap: without this a plan made while the outbox was small reads all that is below last_id.
          ORDER BY o.xid, o.id)
        ) AS s
     ORDER BY s.id
     LIMIT max_ids;
END
$function$;

CREATE FUNCTION durable_notify._has_stragglers(
    topic text, seen pg_snapshot, window_end pg_snapshot, from_id bigint, last_id bigint
) RETURNS boolean
LANGUAGE plpgsql STABLE STRICT AS $function$
#variable_conflict use_column
BEGIN
    -- Return whether _stragglers() would find one from an id on by the earlier snapshot's list. It stops
    -- at the first.
    RETURN EXISTS (
        SELECT FROM pg_catalog.pg_snapshot_xip(seen) AS running (xid)
         CROSS JOIN LATERAL (
               SELECT o.id FROM durable_notify.outbox o
                WHERE o.topic = _has_stragglers.topic
                  AND (o.xid, o.id) >= (running.xid, from_id) AND (o.xid, o.id) <= (running.xid, _has_stragglers.last_id)
                  AND o.id >= from_id AND o.id <= _has_stragglers.last_id
                ORDER BY o.xid, o.id
                LIMIT 1) found
         WHERE pg_catalog.pg_visible_in_snapshot(running.xid, window_end));
END
$function$;
