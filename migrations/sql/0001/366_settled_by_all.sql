CREATE FUNCTION durable_notify.settled_by_all(topic text, upto bigint) RETURNS bigint
LANGUAGE plpgsql STABLE STRICT AS $function$
#variable_conflict use_column
DECLARE
    part integer;
BEGIN
    -- The highest id, upto at most, below which every group has settled every message of a topic. 0, where one
    -- has a pattern that the topic fits and has yet to discover it: it is to get all of it.
    IF EXISTS (SELECT FROM durable_notify.pattern p
                WHERE topic ~ durable_notify.topic_regex(p.pattern)
                  AND NOT EXISTS (SELECT FROM durable_notify.subscription s
                                   WHERE s.group_id = p.group_id AND s.topic = settled_by_all.topic)) THEN
        RETURN 0;
    END IF;
    FOR part IN SELECT s.id FROM durable_notify.subscription s WHERE s.topic = settled_by_all.topic ORDER BY s.id LOOP
        upto := durable_notify.settled_below(part, upto);
    END LOOP;
    RETURN upto;
END
$function$;
