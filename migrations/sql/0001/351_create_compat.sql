CREATE FUNCTION durable_notify.create_compat() RETURNS void
LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    -- Make the schema durable_notify_compat, whose pg_notify() is notify(): a role with it before
    -- pg_catalog in its search_path publishes durably with the statements that it has. Does nothing
    -- where it is there. The NOTIFY statement, pg_catalog.pg_notify() by its full name, and functions
    -- with a search_path of their own are not caught.
    --
    -- For the owner of the schema. Nobody else may create anything in it: whoever could would have his
    -- functions called in place of others by each role that has it in its search_path.
    CREATE SCHEMA IF NOT EXISTS durable_notify_compat;
    CREATE OR REPLACE FUNCTION durable_notify_compat.pg_notify(channel text, payload text) RETURNS void
    LANGUAGE plpgsql VOLATILE AS $body$
    BEGIN
        -- In place of pg_catalog.pg_notify(): durable. See durable_notify.notify().
        PERFORM durable_notify.notify(channel, payload);
    END
    $body$;
    REVOKE ALL ON SCHEMA durable_notify_compat FROM PUBLIC;
    GRANT USAGE ON SCHEMA durable_notify_compat TO PUBLIC;
    GRANT EXECUTE ON FUNCTION durable_notify_compat.pg_notify(text, text) TO PUBLIC;
END
$function$;
