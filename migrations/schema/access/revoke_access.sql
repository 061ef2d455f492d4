CREATE FUNCTION durable_notify.revoke_access(
    role text, action text DEFAULT NULL, topics text[] DEFAULT NULL, group_name text DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_variable
DECLARE
    grantee regrole;
    taken bigint;
BEGIN
    -- Revoke from a role what grant_access() gave it: every grant that matches all arguments that are
    -- not NULL, patterns as they were granted; returns how many grants that were. For the owner of the
    -- schema.
    grantee := durable_notify._resolve_role(role);
    DELETE FROM durable_notify.access a
     WHERE a.role = grantee
       AND (revoke_access.action IS NULL OR a.action = revoke_access.action)
       AND (topics IS NULL OR a.pattern = ANY (topics))
       AND (revoke_access.group_name IS NULL OR a.group_name = revoke_access.group_name);
    GET DIAGNOSTICS taken = ROW_COUNT;
    PERFORM durable_notify._apply_grants(grantee);
    RETURN taken;
END
$function$;
