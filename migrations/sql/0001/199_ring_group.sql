CREATE FUNCTION durable_notify.ring_group(group_id integer) RETURNS void
LANGUAGE sql AS $function$
    -- Wake the consumers of a group: something may be deliverable that was not.
    SELECT durable_notify.ring(s.topic, '*')
      FROM durable_notify.subscription s
     WHERE s.group_id = ring_group.group_id
$function$;
