CREATE FUNCTION durable_notify.retention_watermark(topic text) RETURNS bigint
LANGUAGE plpgsql STABLE STRICT
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    policy durable_notify.topic_retention := durable_notify._retention_for(topic);
    below bigint;
BEGIN
    -- Below which id every message of a topic may be removed now; 0: none.
    --
    -- It reads one snapshot, below what _advance_watermark() has recorded: nothing can appear there any
    -- more, so that a removed message was settled by every group or recorded as its loss. A caller that
    -- removes takes _lock_removal() first: otherwise a message could be redelivered after this looked.
    -- A group's lag counts the same for block and lose: _record_losses() records what it loses before
    -- it can be removed.
    IF policy.pattern IS NULL THEN
        RETURN 0;
    END IF;
    below := LEAST(durable_notify._due_watermark(topic, policy), durable_notify._watermark());
    IF policy.archive THEN
        below := LEAST(below, COALESCE(
            (SELECT p.archived_below FROM durable_notify.maintenance_progress p WHERE p.topic = retention_watermark.topic), 0));
    END IF;
    -- Most topics have nothing that old: then do not ask all their groups.
    IF NOT EXISTS (SELECT FROM durable_notify.outbox o WHERE o.topic = retention_watermark.topic AND o.id < below) THEN
        RETURN 0;
    END IF;
    RETURN durable_notify._all_settled_watermark(topic, below);
END
$function$;
