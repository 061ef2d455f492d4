CREATE FUNCTION durable_notify._message(topic text, message_id bigint, lowest bigint, highest bigint)
RETURNS SETOF durable_notify.outbox
LANGUAGE sql STABLE ROWS 1 AS $function$
    -- A message, by one probe of the index; it is put in place of its call.
    --
    -- Trap: a plain join, planned while the log was small and cached, reads the whole topic for
    -- each claim, until somebody analyses the log. LIMIT keeps it one probe a message. A range, since of
    -- equal ids the order is taken for given, and then either index will do, of a leaf that was empty when
    -- this was planned. lowest and highest bound all that are looked for: without, each leaf is opened.
    SELECT * FROM durable_notify.outbox o
     WHERE o.topic = _message.topic AND o.id >= message_id AND o.id <= message_id
       AND o.id >= lowest AND o.id <= highest
     ORDER BY o.id LIMIT 1
$function$;
