CREATE FUNCTION durable_notify.stand_down(group_name text, consumer text) RETURNS boolean
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    left_group integer;
BEGIN
    -- Let another consumer of an exclusive group be the active one at once; false if this one was not.
    IF NOT durable_notify.has_own_rights() THEN
        RETURN durable_notify.stand_down_granted(group_name, consumer);
    END IF;
    DELETE FROM durable_notify.active a USING durable_notify.consumer_group g
     WHERE g.name = group_name AND a.group_id = g.id AND a.consumer = stand_down.consumer
    RETURNING a.group_id INTO left_group;
    PERFORM durable_notify.ring_group(left_group);
    RETURN left_group IS NOT NULL;
END
$function$;
