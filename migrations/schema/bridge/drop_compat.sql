CREATE FUNCTION durable_notify.drop_compat() RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
BEGIN
    -- Remove what create_compat() made; returns whether it existed. Roles that still have the schema in
    -- their search_path notify as before: PostgreSQL skips a schema that does not exist.
    PERFORM durable_notify._lock_functions();
    -- Not from pg_namespace: an older snapshot still sees a schema that has gone meanwhile.
    IF pg_catalog.to_regnamespace('durable_notify_compat') IS NULL THEN
        RETURN false;
    END IF;
    DROP FUNCTION IF EXISTS durable_notify_compat.pg_notify(text, text);
    DROP SCHEMA durable_notify_compat;
    RETURN true;
END
$function$;
