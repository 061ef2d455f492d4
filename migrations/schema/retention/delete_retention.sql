CREATE FUNCTION durable_notify.delete_retention(topic text) RETURNS boolean
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_variable
DECLARE
    known boolean;
BEGIN
    -- Take back what set_retention() said of a topic, or a pattern: what another one is not for is kept
    -- for ever. False: nothing was said. For the owner of the schema.
    PERFORM durable_notify._lock_functions();
    PERFORM durable_notify._block_removal();  -- nothing goes by what was said before, once this has committed
    DELETE FROM durable_notify.topic_retention r WHERE r.pattern = topic;
    known := FOUND;
    PERFORM durable_notify._rebuild_key_required();
    RETURN known;
END
$function$;
