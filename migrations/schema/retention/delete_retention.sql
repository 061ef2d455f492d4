CREATE FUNCTION durable_notify.delete_retention(topic text) RETURNS boolean
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_variable
DECLARE
    known boolean;
BEGIN
    -- Delete what set_retention() set for a topic, or a pattern: the next most specific that matches
    -- counts then, and a topic without any is kept for ever. False: nothing was set. For the owner of the schema.
    PERFORM durable_notify._lock_functions();
    PERFORM durable_notify._block_removal();  -- once this has committed, nothing is removed by the old setting
    DELETE FROM durable_notify.topic_retention r WHERE r.pattern = topic;
    known := FOUND;
    PERFORM durable_notify._rebuild_key_required();
    RETURN known;
END
$function$;
