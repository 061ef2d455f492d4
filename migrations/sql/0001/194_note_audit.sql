CREATE FUNCTION durable_notify.note_audit(
    action text, group_name text, details jsonb DEFAULT NULL, topic text DEFAULT NULL,
    messages bigint DEFAULT NULL, why text DEFAULT NULL
) RETURNS void
LANGUAGE sql AS $function$
    -- Note what is done to a group by hand, in the same transaction.
    INSERT INTO durable_notify.audit (action, group_name, topic, messages, why, details)
    VALUES (note_audit.action, note_audit.group_name, note_audit.topic, note_audit.messages, note_audit.why, note_audit.details)
$function$;
