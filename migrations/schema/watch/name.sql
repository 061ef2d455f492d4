CREATE FUNCTION durable_notify._watch_trigger_name(topic text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $function$
    -- The name of the triggers that publish a table's changes to a topic. They come last of a table's
    -- triggers, which go by their names: what others change is published as it ends.
    SELECT 'zz_durable_notify_' || pg_catalog.left(pg_catalog.md5(topic), 16)
$function$;
