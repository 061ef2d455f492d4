CREATE FUNCTION durable_notify.drop_compat() RETURNS void
LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    -- Remove what create_compat() made. Roles that still have the schema in their search_path notify as
    -- before: a schema that is not there is passed over.
    DROP FUNCTION IF EXISTS durable_notify_compat.pg_notify(text, text);
    DROP SCHEMA IF EXISTS durable_notify_compat;
EXCEPTION
    WHEN invalid_schema_name THEN NULL;
END
$function$;
