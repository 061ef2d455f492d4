CREATE FUNCTION durable_notify.require_seeing(group_name text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql STABLE AS $function$
BEGIN
    -- Refuse, unless the caller observes everything, or consumes in a group (NULL: in any).
    IF NOT durable_notify.granted('observe', NULL, NULL)
       AND NOT durable_notify.granted('consume', NULL, group_name) THEN
        PERFORM durable_notify.require('observe');
    END IF;
END
$function$;
