CREATE FUNCTION durable_notify._watch_trigger_name(topic text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $function$
    -- The name of the triggers that publish a table's changes to a topic. A table's triggers run in the
    -- order of their names, and these run last: changes by other triggers are published, too.
    SELECT 'zz_durable_notify_' || pg_catalog.left(pg_catalog.md5(topic), 16)
$function$;
