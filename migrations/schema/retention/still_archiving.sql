CREATE FUNCTION durable_notify.still_archiving(worker text, topic text, from_id bigint, below bigint) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- Give a sign of life while a stretch is archived. Returns whether the worker still maintains, and
    -- the stretch is still what plan_archive() named. If so, all that was read of it until now existed:
    -- nothing is removed before advance_archive().
    --
    -- Trap: a worker that was paused and replaced reads empty pages of what was removed meanwhile,
    -- without an error.
    RETURN durable_notify.maintain_step(still_archiving.worker, 'archive', still_archiving.topic) IS NOT NULL
       AND EXISTS (SELECT FROM durable_notify.maintenance_progress p
                    WHERE p.topic = still_archiving.topic AND p.archived_below = still_archiving.from_id
                      AND p.archiving_below = still_archiving.below);
END
$function$;
