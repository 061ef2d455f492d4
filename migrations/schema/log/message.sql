CREATE FUNCTION durable_notify._message(topic text, message_id bigint, lowest bigint, highest bigint)
RETURNS SETOF durable_notify.outbox
LANGUAGE sql STABLE ROWS 1 AS $function$
    -- A message, by one probe of the index; PostgreSQL inlines it.
    --
    -- Trap: a plain join, planned while the outbox was small and cached, reads the whole topic for each
    -- claim, until the outbox is analyzed. LIMIT keeps it one probe a message.
    -- A range, because for equal ids the planner takes the order for given, and then uses either index,
    -- of a partition that was empty when this was planned. lowest and highest bound all ids that are
    -- looked for: without them, each partition is opened.
    SELECT * FROM durable_notify.outbox o
     WHERE o.topic = _message.topic AND o.id >= message_id AND o.id <= message_id
       AND o.id >= lowest AND o.id <= highest
     ORDER BY o.id LIMIT 1
$function$;
