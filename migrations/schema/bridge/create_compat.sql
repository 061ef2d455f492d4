CREATE FUNCTION durable_notify.create_compat() RETURNS void
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    owner text := (SELECT n.nspowner::regrole::text FROM pg_catalog.pg_namespace n WHERE n.nspname = 'durable_notify');
    other text;
BEGIN
    -- Create the schema durable_notify_compat, whose pg_notify() is notify(). A role that has it before
    -- pg_catalog in its search_path publishes durably with its existing statements. If the schema
    -- exists, it is corrected. This does not catch the NOTIFY statement, pg_catalog.pg_notify() by its
    -- full name, and functions with a search_path of their own.
    --
    -- For the owner of the schema. No other role may create anything in it: a function created there
    -- would be called in place of the real one by each role that has the schema in its search_path.
    PERFORM durable_notify._lock_functions();
    other := (SELECT n.nspowner::regrole::text FROM pg_catalog.pg_namespace n
               WHERE n.nspname = 'durable_notify_compat' AND n.nspowner::regrole::text <> owner);
    IF other IS NOT NULL THEN
        RAISE EXCEPTION 'the schema durable_notify_compat exists and belongs to %', other
            USING ERRCODE = '22023', HINT = 'Check what it contains, and drop it. Nothing was changed.';
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
    FOR other IN  -- what default privileges, or another role, may have granted
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
