CREATE FUNCTION durable_notify.topics() RETURNS TABLE (topic text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- The topics that have messages and that the caller may read.
    IF NOT durable_notify.has_own_rights() THEN
        RETURN QUERY SELECT * FROM durable_notify.topics_granted();
        RETURN;
    END IF;
    RETURN QUERY SELECT t FROM durable_notify.topics_of_the_log() AS t;
END
$function$;
