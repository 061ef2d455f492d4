CREATE FUNCTION durable_notify.role_of_access(role text) RETURNS regrole
LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    found regrole := pg_catalog.to_regrole(pg_catalog.quote_ident(role));
BEGIN
    -- The role of a name, for a change of what it may do; one at a time. What is left of roles that were
    -- dropped goes.
    IF found IS NULL THEN
        RAISE EXCEPTION 'there is no role "%"', role
            USING ERRCODE = '22023', HINT = 'CREATE ROLE makes one. Nothing was changed.';
    END IF;
    PERFORM durable_notify.hold_functions();
    DELETE FROM durable_notify.access a WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = a.role);
    RETURN found;
END
$function$;
