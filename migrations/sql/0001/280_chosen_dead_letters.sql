CREATE FUNCTION durable_notify.chosen_dead_letters(
    group_name text, topic text, ids bigint[], key text, error_type text, since timestamptz, until timestamptz
) RETURNS SETOF durable_notify.dead_letter
LANGUAGE sql STABLE AS $function$
    -- The dead letters of a group (NULL: of all) that fit every condition that is not NULL.
    SELECT d.*
      FROM durable_notify.dead_letter d
      JOIN durable_notify.subscription s ON s.id = d.subscription_id
      JOIN durable_notify.consumer_group g ON g.id = s.group_id
     WHERE (chosen_dead_letters.group_name IS NULL OR g.name = chosen_dead_letters.group_name)
       AND (chosen_dead_letters.topic IS NULL OR d.topic = chosen_dead_letters.topic)
       AND (chosen_dead_letters.ids IS NULL OR d.message_id = ANY (chosen_dead_letters.ids))
       AND (chosen_dead_letters.key IS NULL OR d.key = chosen_dead_letters.key)
       AND (chosen_dead_letters.error_type IS NULL OR d.error ->> 'type' = chosen_dead_letters.error_type)
       AND (chosen_dead_letters.since IS NULL OR d.dead_at >= chosen_dead_letters.since)
       AND (chosen_dead_letters.until IS NULL OR d.dead_at < chosen_dead_letters.until)
$function$;
