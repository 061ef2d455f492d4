CREATE FUNCTION durable_notify.resume(group_name text) RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
BEGIN
    -- Deliver messages to a paused group again, from where it was; it has lost nothing meanwhile.
    IF NOT durable_notify._is_owner() THEN
        PERFORM durable_notify._resume_granted(group_name);
        RETURN;
    END IF;
    PERFORM durable_notify._set_paused(group_name, false);
END
$function$;

CALL durable_notify._grantable('resume', '{consume}', $$_require('consume', NULL, group_name)$$);
