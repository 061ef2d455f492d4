CREATE FUNCTION durable_notify.set_operator_events(
    kind text, group_name text DEFAULT NULL, enabled boolean DEFAULT true
) RETURNS boolean
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_variable
BEGIN
    -- Publish events of a kind, of a group or of all (NULL), from now on, or no more; returns whether
    -- that changed. They are messages of the topic durable_notify. and the kind: dead_letter, loss,
    -- group_failing or retention_alarm. For the owner of the schema.
    IF kind IS NULL OR enabled IS NULL OR kind NOT IN ('dead_letter', 'loss', 'group_failing', 'retention_alarm') THEN
        RAISE EXCEPTION 'invalid kind of operator events "%": use dead_letter, loss, group_failing or retention_alarm', kind
            USING ERRCODE = '22023', HINT = 'Nothing was changed.';
    END IF;
    IF NOT enabled THEN
        IF group_name IS NOT NULL AND EXISTS (
            SELECT FROM durable_notify.operator_event e WHERE e.kind = set_operator_events.kind AND e.group_name = '') THEN
            RAISE EXCEPTION '% is published for all groups, and cannot be switched off for one', kind
                USING ERRCODE = '22023', HINT = 'Switch it off for all, and on for those that you want. Nothing was changed.';
        END IF;
        DELETE FROM durable_notify.operator_event e
         WHERE e.kind = set_operator_events.kind AND e.group_name = COALESCE(set_operator_events.group_name, '');
        RETURN FOUND;
    END IF;
    IF NOT EXISTS (SELECT FROM durable_notify.consumer_group g WHERE g.name = group_name) AND group_name IS NOT NULL THEN
        RAISE EXCEPTION 'there is no consumer group "%"', group_name
            USING ERRCODE = 'DN005', HINT = 'durable_notify.subscribe() creates a group; durable_notify.status() lists them.';
    END IF;
    INSERT INTO durable_notify.operator_event AS e (kind, group_name) VALUES (kind, COALESCE(group_name, ''))
    ON CONFLICT ON CONSTRAINT operator_event_pkey DO NOTHING;
    RETURN FOUND;
END
$function$;
