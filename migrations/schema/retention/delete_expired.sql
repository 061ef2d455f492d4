CREATE FUNCTION durable_notify._delete_expired(topic text) RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET jit = off SET lock_timeout = '1s'
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    below bigint;
    removed bigint;
    last_id bigint;
    last_xid xid8;
    partition record;
    seen pg_snapshot;
BEGIN
    -- Remove the next messages of a topic that may be removed; returns how many. _truncate_partition()
    -- removes a closed partition as a whole. Here a topic's messages in it are removed only once all of
    -- them may be. And not while the partition waits for older snapshots: deleted rows would take their
    -- space for as long.
    --
    -- Under _lock_removal() what may be removed stays so. Trap: except what has appeared since the
    -- look, with an id that was drawn long ago; hence the snapshot. And except what replication has
    -- brought, whose xids are another cluster's: the statement that removes sees that as well.
    IF (durable_notify._retention_for(topic)).pattern IS NULL OR NOT durable_notify._lock_removal() THEN
        RETURN 0;
    END IF;
    seen := durable_notify._committed_snapshot();
    below := LEAST(durable_notify.retention_watermark(topic), (
        SELECT pg_catalog.min(u.first_id) FROM durable_notify.unwanted_partition u
         WHERE u.first_id > 0 AND EXISTS (SELECT FROM durable_notify._older_snapshots(u.since))));
    SELECT p.first_id, p.next_id INTO partition FROM durable_notify.partitions() p
     WHERE below > p.first_id AND below < p.next_id AND p.next_id <= durable_notify._watermark();
    IF FOUND AND EXISTS (SELECT FROM durable_notify.outbox o
                          WHERE o.topic = _delete_expired.topic AND o.id >= below AND o.id < partition.next_id) THEN
        below := partition.first_id;
    END IF;
    WITH gone AS (
        DELETE FROM durable_notify.outbox o USING (
            SELECT x.id FROM durable_notify.outbox x
             WHERE x.topic = _delete_expired.topic AND x.id < below AND pg_catalog.pg_visible_in_snapshot(x.xid, seen)
               AND durable_notify.log_id() IS NOT NULL  -- raises
             ORDER BY x.id LIMIT 1000) AS old
         WHERE o.topic = _delete_expired.topic AND o.id = old.id
        RETURNING o.id, o.xid)
    SELECT pg_catalog.count(*), pg_catalog.max(g.id), (SELECT h.xid FROM gone h ORDER BY h.xid DESC LIMIT 1)
      INTO removed, last_id, last_xid FROM gone g;
    IF removed > 0 THEN
        PERFORM durable_notify._record_removed(topic, last_id, last_xid);
    END IF;
    RETURN removed;
EXCEPTION WHEN lock_not_available THEN
    RETURN 0;  -- another time: replays need not wait
END
$function$;
