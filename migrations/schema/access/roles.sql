CREATE FUNCTION durable_notify._resolve_role(role text) RETURNS regrole
LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    found regrole := pg_catalog.to_regrole(pg_catalog.quote_ident(role));
BEGIN
    -- Find the role of a name, for a change of what it may do; one change at a time. This also deletes
    -- the grants of roles that were dropped.
    IF found IS NULL THEN
        RAISE EXCEPTION 'there is no role "%"', role
            USING ERRCODE = '22023', HINT = 'Create it with CREATE ROLE. Nothing was changed.';
    END IF;
    PERFORM durable_notify._lock_functions();
    DELETE FROM durable_notify.access a WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = a.role);
    RETURN found;
END
$function$;

CREATE FUNCTION durable_notify._granted_functions(action text) RETURNS SETOF regprocedure
LANGUAGE sql STABLE AS $function$
    -- The functions that a role needs for what it was granted, their twins included.
    SELECT p.oid::regprocedure
      FROM durable_notify._grantable_functions() g
      JOIN pg_catalog.pg_proc p ON p.proname IN (g.function, '_' || g.function || '_granted')
     WHERE p.pronamespace = 'durable_notify'::regnamespace AND _granted_functions.action = ANY (g.actions)
$function$;

CREATE FUNCTION durable_notify._apply_grants(grantee regrole) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    granted_action text;
    callable regprocedure;
BEGIN
    -- Grant a role the PostgreSQL privileges that the table access says it needs, and revoke others
    -- that it was given for this.
    EXECUTE pg_catalog.format('REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA durable_notify FROM %s', grantee);
    EXECUTE pg_catalog.format('REVOKE SELECT ON durable_notify.schema_version FROM %s', grantee);
    EXECUTE pg_catalog.format('REVOKE INSERT, SELECT ON durable_notify.outbox FROM %s', grantee);
    EXECUTE pg_catalog.format('REVOKE USAGE ON SCHEMA durable_notify FROM %s', grantee);
    FOR granted_action IN SELECT DISTINCT a.action FROM durable_notify.access a WHERE a.role = grantee LOOP
        EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA durable_notify TO %s', grantee);
        EXECUTE pg_catalog.format('GRANT SELECT ON durable_notify.schema_version TO %s', grantee);
        FOR callable IN SELECT f FROM durable_notify._granted_functions(granted_action) AS f LOOP
            EXECUTE pg_catalog.format('GRANT EXECUTE ON ROUTINE %s TO %s', callable, grantee);
        END LOOP;
        IF granted_action = 'insert' THEN
            -- By column: no role writes xid or id. The id is for RETURNING.
            EXECUTE pg_catalog.format(
                'GRANT INSERT (topic, key, payload, data, headers, deliver_at, expires_at), SELECT (id)'
                ' ON durable_notify.outbox TO %s', grantee);
        END IF;
    END LOOP;
END
$function$;
