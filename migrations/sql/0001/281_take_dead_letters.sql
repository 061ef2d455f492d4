CREATE FUNCTION durable_notify.take_dead_letters(
    group_name text, topic text, ids bigint[], key text, error_type text, since timestamptz, until timestamptz,
    everything boolean
) RETURNS SETOF durable_notify.dead_letter
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
BEGIN
    -- Remove dead letters and return them; each goes to one of those who ask at the same time.
    IF NOT everything AND topic IS NULL AND ids IS NULL AND key IS NULL AND error_type IS NULL
       AND since IS NULL AND until IS NULL THEN
        RAISE EXCEPTION 'which dead letters of group "%"?', group_name
            USING ERRCODE = '22023', HINT = 'Give a condition, or everything => true.';
    END IF;
    PERFORM durable_notify.keep_all();  -- what comes again is not removed meanwhile
    PERFORM durable_notify.group_lock(group_name);
    RETURN QUERY
    DELETE FROM durable_notify.dead_letter d
     USING durable_notify.chosen_dead_letters(
               take_dead_letters.group_name, take_dead_letters.topic, take_dead_letters.ids, take_dead_letters.key,
               take_dead_letters.error_type, take_dead_letters.since, take_dead_letters.until) AS c
     WHERE d.subscription_id = c.subscription_id AND d.message_id = c.message_id
    RETURNING d.*;
END
$function$;
