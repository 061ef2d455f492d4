CREATE FUNCTION durable_notify.advance_archive(topic text, from_id bigint, below bigint, worker text DEFAULT NULL)
RETURNS boolean
LANGUAGE plpgsql
SET lock_timeout = '1s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- Record that what plan_archive() named is archived, for good: it may be removed now. False:
    -- another worker has recorded so already; or the worker named, of maintain_begin(), does not
    -- maintain any more.
    IF advance_archive.worker IS NOT NULL AND durable_notify.maintain_step(advance_archive.worker, 'archive') IS NULL THEN
        RETURN false;
    END IF;
    UPDATE durable_notify.maintenance_progress p SET archived_below = advance_archive.below, archiving_below = NULL
     WHERE p.topic = advance_archive.topic AND p.archived_below = advance_archive.from_id
       AND p.archiving_below = advance_archive.below;
    RETURN FOUND;
END
$function$;
