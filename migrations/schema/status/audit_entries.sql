CREATE FUNCTION durable_notify.audit_entries(
    group_name text DEFAULT NULL, before_id bigint DEFAULT NULL, max_entries bigint DEFAULT NULL
) RETURNS SETOF durable_notify.audit
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- The changes of a group by hand (NULL: of all that the caller may see), the newest first: those
    -- before before_id, and no more than max_entries.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._audit_entries_granted(group_name, before_id, max_entries);
        RETURN;
    END IF;
    RETURN QUERY
    SELECT a.* FROM durable_notify.audit a
     WHERE (audit_entries.group_name IS NULL OR a.group_name = audit_entries.group_name)
       AND (before_id IS NULL OR a.id < before_id)
       AND (max_entries IS NULL OR (SELECT durable_notify._sees_all_groups()) OR durable_notify._can_observe(a.group_name, a.topic))
     ORDER BY a.id DESC LIMIT max_entries;
END
$function$;

CREATE FUNCTION durable_notify._record_audit(
    action text, group_name text, details jsonb DEFAULT NULL, topic text DEFAULT NULL,
    messages bigint DEFAULT NULL, why text DEFAULT NULL
) RETURNS void
LANGUAGE sql AS $function$
    -- Record a change of a group by hand, in the same transaction.
    INSERT INTO durable_notify.audit (acting_as, action, group_name, topic, messages, why, details)
    SELECT CASE WHEN pg_catalog.has_table_privilege(c.caller, 'durable_notify.outbox', 'TRUNCATE')
                THEN CURRENT_USER ELSE c.caller END,  -- the role whose rights count, not the owner of the function
           _record_audit.action, _record_audit.group_name, _record_audit.topic, _record_audit.messages, _record_audit.why, _record_audit.details
      FROM durable_notify._calling_role() AS c (caller)
$function$;

CALL durable_notify._grantable('audit_entries', '{observe,consume}', $$_require_observe(group_name)$$,
    visible => $$_can_observe(f.group_name, f.topic)$$);
