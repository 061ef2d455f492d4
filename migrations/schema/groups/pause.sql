CREATE FUNCTION durable_notify.pause(group_name text) RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
BEGIN
    -- Deliver nothing more to a group until resume(). What is leased can be settled.
    IF NOT durable_notify._is_owner() THEN
        PERFORM durable_notify._pause_granted(group_name);
        RETURN;
    END IF;
    PERFORM durable_notify._set_paused(group_name, true);
END
$function$;

CREATE FUNCTION durable_notify._set_paused(group_name text, paused boolean, why text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql AS $function$
DECLARE
    changed integer := (durable_notify._lock_group(group_name)).id;
BEGIN
    -- Pause a group, or resume it; the moment of the first pause stays.
    UPDATE durable_notify.consumer_group g SET paused_at = CASE WHEN paused THEN pg_catalog.clock_timestamp() END
     WHERE g.id = changed AND (g.paused_at IS NULL) = paused;
    PERFORM durable_notify._record_audit(CASE WHEN paused THEN 'pause' ELSE 'resume' END, group_name, why => why);
    IF NOT paused THEN
        UPDATE durable_notify.webhook w SET failing_since = NULL, failure = NULL WHERE w.group_id = changed;
        PERFORM durable_notify._ring_group(changed);
    END IF;
    IF EXISTS (SELECT FROM durable_notify.webhook w WHERE w.group_id = changed) THEN
        PERFORM durable_notify._ring_webhooks();
    END IF;
END
$function$;

CALL durable_notify._grantable('pause', '{consume}', $$_require('consume', NULL, group_name)$$);
