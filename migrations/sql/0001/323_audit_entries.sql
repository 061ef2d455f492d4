CREATE FUNCTION durable_notify.audit_entries(group_name text DEFAULT NULL) RETURNS SETOF durable_notify.audit
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- What was done by hand to a group (NULL: to all that the caller may see), the newest first.
    IF NOT durable_notify.has_own_rights() THEN
        RETURN QUERY SELECT * FROM durable_notify.audit_entries_granted(group_name);
        RETURN;
    END IF;
    RETURN QUERY
    SELECT a.* FROM durable_notify.audit a
     WHERE audit_entries.group_name IS NULL OR a.group_name = audit_entries.group_name
     ORDER BY a.id DESC;
END
$function$;
