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

CREATE FUNCTION durable_notify._durable_snapshot(topic text) RETURNS pg_snapshot
LANGUAGE plpgsql STABLE AS $function$
#variable_conflict use_column
DECLARE
    seen pg_snapshot := durable_notify._committed_snapshot();
    past bigint;
BEGIN
    -- What has committed of a topic by now, as a snapshot that outlasts a crash of the server. It ends
    -- after the youngest transaction that has written a message of the topic. No transaction after
    -- that one has, so none is left out.
    -- Trap: a crash forgets transactions that nothing on the disk tells of, such as autovacuum's. The
    -- server begins again below them, and a snapshot with them would be ahead of it.
    past := 1 + GREATEST(
        (SELECT o.xid FROM durable_notify.outbox o WHERE o.topic = _durable_snapshot.topic ORDER BY o.xid DESC LIMIT 1),
        (SELECT m.removed_xid FROM durable_notify.maintenance_progress m WHERE m.topic = _durable_snapshot.topic),
        '3')::text::bigint;  -- "3:3:" is the beginning of every topic
    IF past >= pg_catalog.pg_snapshot_xmax(seen)::text::bigint THEN
        RETURN seen;
    END IF;
    RETURN (
        SELECT pg_catalog.format(
                   '%s:%s:%s', LEAST(past, pg_catalog.pg_snapshot_xmin(seen)::text::bigint), past,
                   pg_catalog.string_agg(running.xid::text, ',' ORDER BY running.xid))::pg_snapshot
          FROM pg_catalog.pg_snapshot_xip(seen) AS running (xid)
         WHERE running.xid < past::text::xid8);
END
$function$;
