CREATE FUNCTION durable_notify.issue_grants(grantee regrole) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    granted_action text;
    callable regprocedure;
BEGIN
    -- Give a role the PostgreSQL privileges for what the table access says of it, and take back others
    -- that it was given for this.
    EXECUTE pg_catalog.format('REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA durable_notify FROM %s', grantee);
    EXECUTE pg_catalog.format('REVOKE SELECT ON durable_notify.schema_version FROM %s', grantee);
    EXECUTE pg_catalog.format('REVOKE INSERT, SELECT ON durable_notify.outbox FROM %s', grantee);
    EXECUTE pg_catalog.format('REVOKE USAGE ON SCHEMA durable_notify FROM %s', grantee);
    FOR granted_action IN SELECT DISTINCT a.action FROM durable_notify.access a WHERE a.role = grantee LOOP
        EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA durable_notify TO %s', grantee);
        EXECUTE pg_catalog.format('GRANT SELECT ON durable_notify.schema_version TO %s', grantee);
        FOR callable IN SELECT f FROM durable_notify.functions_for(granted_action) AS f LOOP
            EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %s', callable, grantee);
        END LOOP;
        IF granted_action = 'insert' THEN
            -- By column: nobody writes xid or id. The id is for RETURNING.
            EXECUTE pg_catalog.format(
                'GRANT INSERT (topic, key, payload, data, headers, deliver_at, expires_at), SELECT (id)'
                ' ON durable_notify.outbox TO %s', grantee);
        END IF;
    END LOOP;
END
$function$;
