CREATE FUNCTION durable_notify.topics_meant(group_name text, topic text) RETURNS text[]
LANGUAGE sql STABLE AS $function$
    -- A topic, or where none is given, all that a group is subscribed to.
    SELECT CASE WHEN topics_meant.topic IS NOT NULL THEN ARRAY[topics_meant.topic] ELSE ARRAY(
        SELECT s.topic FROM durable_notify.subscription s JOIN durable_notify.consumer_group g ON g.id = s.group_id
         WHERE g.name = topics_meant.group_name) END
$function$;
