CREATE FUNCTION durable_notify.maintain_begin(worker text, every interval) RETURNS boolean
LANGUAGE plpgsql
SET lock_timeout = '1s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    standing durable_notify.maintenance;
    now_time timestamptz := pg_catalog.clock_timestamp();
BEGIN
    -- Begin a round of maintenance; returns true if one is due, so long after the last was done, and no
    -- other worker runs one. A worker that has given no sign of life for 30 seconds does not count any
    -- more.
    --
    -- This locks a row of a table that only the owner can lock, in a transaction as short as a step. An
    -- advisory lock could be kept for ever by any role that can connect, and, if a session took it, by
    -- a pooler.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._maintain_begin_granted(worker, every);
    END IF;
    PERFORM durable_notify.log_id();  -- refuses an outbox that came from another cluster
    INSERT INTO durable_notify.maintenance DEFAULT VALUES ON CONFLICT DO NOTHING;
    SELECT m.* INTO standing FROM durable_notify.maintenance m FOR UPDATE SKIP LOCKED;
    IF NOT FOUND
       OR standing.done_at > now_time - every AND standing.done_at <= now_time
       OR standing.worker <> maintain_begin.worker
          AND standing.beat_at > now_time - interval '30 seconds' AND standing.beat_at <= now_time THEN
        RETURN false;
    END IF;
    UPDATE durable_notify.maintenance m SET worker = maintain_begin.worker, beat_at = now_time;
    RETURN true;
END
$function$;

CALL durable_notify._grantable('maintain_begin', '{maintain}', $$_require('maintain')$$);
