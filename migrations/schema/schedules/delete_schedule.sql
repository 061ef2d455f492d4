CREATE FUNCTION durable_notify.delete_schedule(name text) RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_variable
BEGIN
    -- Delete a schedule; what it has published stays.
    IF NOT durable_notify._is_owner() THEN
        PERFORM durable_notify._delete_schedule_granted(name);
        RETURN;
    END IF;
    DELETE FROM durable_notify.schedule s WHERE s.name = name;
    IF NOT FOUND THEN
        PERFORM durable_notify._raise_no_schedule(name);
    END IF;
    PERFORM durable_notify._record_audit('delete schedule', '', pg_catalog.jsonb_build_object('schedule', name));
END
$function$;

CALL durable_notify._grantable('delete_schedule', '{publish}', $$_require('publish', durable_notify._topic_of_schedule(name))$$);
