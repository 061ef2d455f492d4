CREATE FUNCTION durable_notify.unwatch(watched regclass, topic text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp SET lock_timeout = '3s' AS $function$
DECLARE
    was_there boolean;
    trigger_name text := durable_notify._watch_trigger_name(topic);
BEGIN
    -- Undo watch(): returns whether the table was watched for this topic. For the table's owner, if it
    -- is also a member of this schema's owner; it can also drop the triggers. It waits for sessions
    -- that use the table, at most 3 seconds.
    was_there := EXISTS (
        SELECT FROM pg_catalog.pg_trigger t
         WHERE t.tgrelid = watched AND t.tgname = trigger_name AND t.tgfoid = 'durable_notify._watch_trigger()'::regprocedure);
    IF was_there THEN
        EXECUTE pg_catalog.format('DROP TRIGGER %I ON %s', trigger_name, watched);
        EXECUTE pg_catalog.format('DROP TRIGGER IF EXISTS %I ON %s', trigger_name || '_truncate', watched);
    END IF;
    RETURN was_there;
END
$function$;
