CREATE FUNCTION durable_notify.note_audit(
    action text, group_name text, details jsonb DEFAULT NULL, topic text DEFAULT NULL,
    messages bigint DEFAULT NULL, why text DEFAULT NULL
) RETURNS void
LANGUAGE sql AS $function$
    -- Note what is done to a group by hand, in the same transaction.
    INSERT INTO durable_notify.audit (acting_as, action, group_name, topic, messages, why, details)
    SELECT CASE WHEN pg_catalog.has_table_privilege(c.caller, 'durable_notify.outbox', 'TRUNCATE')
                THEN CURRENT_USER ELSE c.caller END,  -- whose rights count, not with whose it runs
           note_audit.action, note_audit.group_name, note_audit.topic, note_audit.messages, note_audit.why, note_audit.details
      FROM durable_notify.caller() AS c (caller)
$function$;
