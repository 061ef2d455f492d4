CREATE FUNCTION durable_notify.message_of(topic text, message_id bigint) RETURNS SETOF durable_notify.outbox
LANGUAGE sql STABLE ROWS 1 AS $function$
    -- A message, by one probe of the index; it is put in place of its call.
    --
    -- Trap: a plain join, planned while the log was small and cached, reads the whole topic for
    -- each claim, until somebody analyses the log. OFFSET keeps it one probe a message.
    SELECT * FROM durable_notify.outbox o WHERE o.topic = message_of.topic AND o.id = message_id OFFSET 0
$function$;
