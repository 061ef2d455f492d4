CREATE FUNCTION durable_notify.leaf_goes(leaf regclass) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $function$
#variable_conflict use_column
DECLARE
    part record;
BEGIN
    -- Whether every message of a leaf may go.
    FOR part IN SELECT t.topic, t.last_id FROM durable_notify.topics_of_leaf(leaf) t LOOP
        IF part.last_id >= durable_notify.removable_below(part.topic) THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END
$function$;
