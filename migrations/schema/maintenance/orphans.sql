CREATE FUNCTION durable_notify._delete_orphans() RETURNS bigint
LANGUAGE plpgsql
SET enable_mergejoin = off SET jit = off
SET lock_timeout = '1s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    total bigint := 0;
    removed bigint;
    found record;
BEGIN
    -- Remove records of what no longer exists, some 10,000 rows of each kind at most; returns how many:
    -- lease deadlines and settlements without their lease, leases and positions without their
    -- subscription, watermarks without their group, and what was recorded of topics' messages that were
    -- removed, or that no retention needs any more.
    --
    -- This skips what another session has locked. Trap: claims and settles remove such rows as well,
    -- several at once and in an order of their own: a session that waits for one of them may hold what
    -- they wait for.
    DELETE FROM durable_notify.lease l WHERE l.token IN (
        SELECT o.token FROM durable_notify.lease o
         WHERE NOT EXISTS (SELECT FROM durable_notify.subscription s WHERE s.id = o.subscription_id) FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS removed = ROW_COUNT;
    total := total + removed;
    DELETE FROM durable_notify.position p WHERE (p.subscription_id, p.seq) IN (
        SELECT o.subscription_id, o.seq FROM durable_notify.position o
         WHERE NOT EXISTS (SELECT FROM durable_notify.subscription s WHERE s.id = o.subscription_id) FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS removed = ROW_COUNT;
    total := total + removed;
    DELETE FROM durable_notify.lease_deadline h WHERE h.token IN (
        SELECT o.token FROM durable_notify.lease_deadline o
         WHERE NOT EXISTS (SELECT FROM durable_notify.lease l WHERE l.token = o.token) FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS removed = ROW_COUNT;
    total := total + removed;
    DELETE FROM durable_notify.settlement t WHERE (t.token, t.message_id) IN (
        SELECT o.token, o.message_id FROM durable_notify.settlement o
         WHERE NOT EXISTS (SELECT FROM durable_notify.lease l WHERE l.token = o.token) FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS removed = ROW_COUNT;
    total := total + removed;
    -- delete_group() removes it, but only what its snapshot sees: not so if it runs in a REPEATABLE READ
    -- transaction that is older than the last claim. Nor does a DELETE of the group by hand.
    DELETE FROM durable_notify.watermark w WHERE w.group_id IN (
        SELECT o.group_id FROM durable_notify.watermark o
         WHERE o.group_id > 0 AND NOT EXISTS (SELECT FROM durable_notify.consumer_group g WHERE g.id = o.group_id)
           FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS removed = ROW_COUNT;
    total := total + removed;
    FOR found IN
        SELECT p.topic, COALESCE((durable_notify._retention_for(p.topic)).compact, false) AS compact,
               COALESCE((durable_notify._retention_for(p.topic)).max_bytes, (durable_notify._retention_for(p.topic)).alarm_bytes)
               IS NOT NULL AS sized,
               COALESCE((SELECT o.id FROM durable_notify.outbox o WHERE o.topic = p.topic ORDER BY o.id LIMIT 1),
                        9223372036854775807) AS first_id
          FROM durable_notify.maintenance_progress p ORDER BY p.topic FOR UPDATE OF p SKIP LOCKED
    LOOP
        DELETE FROM durable_notify.compacted_key k USING (
            SELECT x.key FROM durable_notify.compacted_key x
             WHERE x.topic = found.topic
               AND x.message_id < CASE WHEN found.compact THEN found.first_id ELSE 9223372036854775807 END
             LIMIT 10000) AS old
         WHERE k.topic = found.topic AND k.key = old.key;
        GET DIAGNOSTICS removed = ROW_COUNT;
        total := total + removed;
        IF NOT found.sized THEN
            UPDATE durable_notify.maintenance_progress p SET measured_below = 1 WHERE p.topic = found.topic AND p.measured_below > 1;
        END IF;
        DELETE FROM durable_notify.topic_size e
         WHERE e.topic = found.topic AND (NOT found.sized OR e.upto_id < found.first_id);
        GET DIAGNOSTICS removed = ROW_COUNT;
        total := total + removed;
    END LOOP;
    RETURN total;
END
$function$;
