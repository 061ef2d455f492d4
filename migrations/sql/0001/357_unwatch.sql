CREATE FUNCTION durable_notify.unwatch(watched regclass, topic text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '3s' AS $function$
DECLARE
    was_there boolean;
    name text := durable_notify.watch_name(topic);
BEGIN
    -- Take back watch(): returns whether the table was watched for this topic.
    was_there := EXISTS (
        SELECT FROM pg_catalog.pg_trigger t
         WHERE t.tgrelid = watched AND t.tgname = name AND t.tgfoid = 'durable_notify.watched()'::regprocedure);
    IF was_there THEN
        EXECUTE pg_catalog.format('DROP TRIGGER %I ON %s', name, watched);
        EXECUTE pg_catalog.format('DROP TRIGGER IF EXISTS %I ON %s', name || '_truncate', watched);
    END IF;
    RETURN was_there;
END
$function$;
