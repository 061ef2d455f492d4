CREATE FUNCTION durable_notify.once(group_name text, message_id bigint) RETURNS boolean
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    known integer;
BEGIN
    -- Return whether a group's handler sees a message for the first time, in the caller's transaction:
    -- true for one transaction that commits, and false for all after it. Another transaction that asks
    -- at the same time waits for the first to end.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._once_granted(group_name, message_id);
    END IF;
    -- As the foreign key would: if the group was deleted meanwhile, the error comes from here, and says
    -- why.
    SELECT g.id INTO known FROM durable_notify.consumer_group g WHERE g.name = group_name FOR KEY SHARE;
    IF known IS NULL THEN
        RAISE EXCEPTION 'there is no consumer group "%"', group_name
            USING ERRCODE = 'DN005', HINT = 'durable_notify.status() lists the groups.';
    END IF;
    INSERT INTO durable_notify.processed_message (group_id, message_id) VALUES (known, once.message_id)
    ON CONFLICT DO NOTHING;
    RETURN FOUND;
END
$function$;

CALL durable_notify._grantable('once', '{consume}', $$_require('consume', NULL, group_name)$$);
