CREATE FUNCTION durable_notify.take_dead_letters(
    group_name text, topic text, ids bigint[], key text, error_type text, since timestamptz, until timestamptz,
    everything boolean
) RETURNS SETOF durable_notify.dead_letter
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
BEGIN
    -- Remove dead letters and return them; each goes to one of those who ask at the same time. One that an
    -- open transaction replaces stays: it must not be waited for with the group's lock held.
    IF NOT everything AND topic IS NULL AND ids IS NULL AND key IS NULL AND error_type IS NULL
       AND since IS NULL AND until IS NULL THEN
        RAISE EXCEPTION 'which dead letters of group "%"?', group_name
            USING ERRCODE = '22023', HINT = 'Give a condition, or everything => true.';
    END IF;
    PERFORM durable_notify.keep_all();  -- what is redelivered is not removed meanwhile
    PERFORM durable_notify.group_lock(group_name);
    RETURN QUERY
    DELETE FROM durable_notify.dead_letter d
     USING (SELECT x.subscription_id, x.message_id, x.seq
              FROM durable_notify.chosen_dead_letters(
                       take_dead_letters.group_name, take_dead_letters.topic, take_dead_letters.ids, take_dead_letters.key,
                       take_dead_letters.error_type, take_dead_letters.since, take_dead_letters.until) AS c
              JOIN durable_notify.dead_letter x USING (subscription_id, message_id, seq)
               FOR UPDATE OF x SKIP LOCKED) AS f
     WHERE d.subscription_id = f.subscription_id AND d.message_id = f.message_id AND d.seq = f.seq
    RETURNING d.*;
END
$function$;
