CREATE FUNCTION durable_notify.may_see(group_name text, topic text) RETURNS boolean
LANGUAGE sql STABLE AS $function$
    -- Whether the caller may see how a group stands in a topic (NULL: at all): it consumes this in the
    -- group, or observes everything.
    SELECT durable_notify.granted('observe', NULL, NULL)
        OR may_see.group_name IS NOT NULL AND durable_notify.granted('consume', may_see.topic, may_see.group_name)
$function$;
