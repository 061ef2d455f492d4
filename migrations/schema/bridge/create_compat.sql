CREATE FUNCTION durable_notify.create_compat() RETURNS void
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    owner text := (SELECT n.nspowner::regrole::text FROM pg_catalog.pg_namespace n WHERE n.nspname = 'durable_notify');
    other text;
BEGIN
    -- Make the schema durable_notify_compat, whose pg_notify() is notify(): a role with it before
    -- pg_catalog in its search_path publishes durably with the statements that it has. Where it is
    -- there, it is made what it should be. The NOTIFY statement, pg_catalog.pg_notify() by its full
    -- name, and functions with a search_path of their own are not caught.
    --
    -- For the owner of the schema. Nobody else may create anything in it: whoever could would have his
    -- functions called in place of others by each role that has it in its search_path.
    PERFORM durable_notify._lock_functions();
    other := (SELECT n.nspowner::regrole::text FROM pg_catalog.pg_namespace n
               WHERE n.nspname = 'durable_notify_compat' AND n.nspowner::regrole::text <> owner);
    IF other IS NOT NULL THEN
        RAISE EXCEPTION 'the schema durable_notify_compat is there, and belongs to %', other
            USING ERRCODE = '22023', HINT = 'Look what is in it, and drop it. Nothing was changed.';
    END IF;
    EXECUTE pg_catalog.format('CREATE SCHEMA IF NOT EXISTS durable_notify_compat AUTHORIZATION %s', owner);
    CREATE OR REPLACE FUNCTION durable_notify_compat.pg_notify(channel text, payload text) RETURNS void
    LANGUAGE plpgsql VOLATILE AS $body$
    DECLARE
        allowed pg_catalog.bool := CASE WHEN pg_catalog.has_schema_privilege('durable_notify', 'USAGE')
            THEN pg_catalog.has_function_privilege('durable_notify.notify(text, text)', 'EXECUTE') ELSE false END;
    BEGIN
        -- In place of pg_catalog.pg_notify(): durable. See durable_notify.notify().
        IF allowed THEN
            PERFORM durable_notify.notify(channel, payload);
            RETURN;
        END IF;
        RAISE EXCEPTION 'permission denied: role "%" may not publish here', CURRENT_USER
            USING ERRCODE = 'insufficient_privilege', HINT = pg_catalog.format(
                'Nothing was notified. The owner of the schema can allow it: durable-notify grant %I --publish %L',
                CURRENT_USER, channel);
    END
    $body$;
    EXECUTE pg_catalog.format('ALTER FUNCTION durable_notify_compat.pg_notify(text, text) OWNER TO %s', owner);
    FOR other IN  -- what default privileges, or somebody, may have given
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
          FROM pg_catalog.pg_namespace n CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) AS a
         WHERE n.nspname = 'durable_notify_compat' AND a.grantee <> n.nspowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON SCHEMA durable_notify_compat FROM %s', other);
    END LOOP;
    GRANT USAGE ON SCHEMA durable_notify_compat TO PUBLIC;
    GRANT EXECUTE ON FUNCTION durable_notify_compat.pg_notify(text, text) TO PUBLIC;
END
$function$;
