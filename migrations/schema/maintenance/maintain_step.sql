CREATE FUNCTION durable_notify.maintain_step(
    worker text, step text, topic text DEFAULT NULL, inbox_age interval DEFAULT NULL, audit_age interval DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_variable
DECLARE
    standing durable_notify.maintenance;
    now_time timestamptz := pg_catalog.clock_timestamp();
BEGIN
    -- Do a bounded piece of one step of maintain_steps(); commit at once. Returns how much was done:
    -- repeat while it is more than 0. NULL: another worker maintains now.
    --
    -- inbox_age, audit_age: for how long these records are kept; NULL: as set_record_age() has it.
    --
    -- The row stays locked until the commit, so that no other worker begins meanwhile. A sign of life
    -- is written only now and then: under a held xmin a row updated each time is walked version by
    -- version.
    -- Trap: do not skip a locked row. A look of another worker, whose round is not due, would count as
    -- a takeover. Such a look is short; and this does not wait for a worker that has taken over,
    -- because it has another name.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._maintain_step_granted(worker, step, topic, inbox_age, audit_age);
    END IF;
    SELECT m.* INTO standing FROM durable_notify.maintenance m WHERE m.worker = worker FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF standing.beat_at < now_time - interval '5 seconds' OR standing.beat_at > now_time THEN
        UPDATE durable_notify.maintenance m SET beat_at = now_time;
    END IF;
    RETURN CASE step
        WHEN 'create_partitions' THEN durable_notify.create_partitions()
        WHEN 'maintain_partitions' THEN durable_notify.maintain_partitions()
        WHEN 'leases' THEN durable_notify._reclaim_expired()
        WHEN 'dedup' THEN durable_notify.prune_dedup(5000)
        WHEN 'inbox' THEN durable_notify.prune_inbox(now_time - COALESCE(inbox_age, durable_notify._age_of_records('inbox')), 10000)
        WHEN 'audit' THEN durable_notify.prune_audit(now_time - COALESCE(audit_age, durable_notify._age_of_records('audit')))
        WHEN 'orphans' THEN durable_notify._delete_orphans()
        WHEN 'discover' THEN durable_notify._discover_one()
        WHEN 'watermark' THEN 0 * durable_notify._advance_watermark()
        WHEN 'measure' THEN durable_notify._measure_topic(topic)
        WHEN 'lose' THEN durable_notify._record_losses(topic, 9223372036854775807)
        WHEN 'compact' THEN durable_notify._compact(topic)
        WHEN 'remove' THEN durable_notify._delete_expired(topic)
        WHEN 'rewrite_partitions' THEN durable_notify._rewrite_partition()
        WHEN 'record_times' THEN durable_notify._record_times()
        WHEN 'alarms' THEN durable_notify._publish_alarms()
        WHEN 'statistics' THEN durable_notify._analyze_stale()
        ELSE 0
    END;
END
$function$;

CALL durable_notify._grantable('maintain_step', '{maintain}', $$_require('maintain')$$, next => $$
    IF inbox_age IS NOT NULL OR audit_age IS NOT NULL THEN
        RAISE EXCEPTION 'permission denied: only the owner of the schema chooses how long records are kept'
            USING ERRCODE = 'insufficient_privilege', HINT = 'Leave the ages out: they are as set_record_age() has them.';
    END IF;
$$);
