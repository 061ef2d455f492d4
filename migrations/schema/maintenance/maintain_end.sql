CREATE FUNCTION durable_notify.maintain_end(worker text, report jsonb) RETURNS boolean
LANGUAGE plpgsql
SET lock_timeout = '1s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- Record that a round is done, and what it did; false: another worker maintains now.
    UPDATE durable_notify.maintenance m
       SET done_at = pg_catalog.clock_timestamp(), beat_at = NULL, worker = NULL, report = maintain_end.report
     WHERE m.worker = maintain_end.worker;
    RETURN FOUND;
END
$function$;
