CREATE FUNCTION durable_notify.caller() RETURNS name
LANGUAGE sql STABLE AS $function$
    -- Whose session this is, or what it has SET ROLE to: in a function that runs with its owner's
    -- rights, current_user is the owner.
    SELECT COALESCE(NULLIF(pg_catalog.current_setting('role'), 'none'), SESSION_USER::text)::name
$function$;
