CREATE FUNCTION durable_notify.maintain_end(worker text, report jsonb) RETURNS boolean
LANGUAGE plpgsql
SET lock_timeout = '1s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- Record that a round is done, and what it did; false: another worker maintains now.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._maintain_end_granted(worker, report);
    END IF;
    UPDATE durable_notify.maintenance m
       SET done_at = pg_catalog.clock_timestamp(), beat_at = NULL, worker = NULL, report = maintain_end.report
     WHERE m.worker = maintain_end.worker;
    RETURN FOUND;
END
$function$;

CALL durable_notify._grantable('maintain_end', '{maintain}', $$_require('maintain')$$);
