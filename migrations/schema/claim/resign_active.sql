CREATE FUNCTION durable_notify.resign_active(group_name text, consumer text) RETURNS boolean
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    left_group integer;
BEGIN
    -- Let another consumer of an exclusive group become the active one at once; false if this one was
    -- not active.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._resign_active_granted(group_name, consumer);
    END IF;
    DELETE FROM durable_notify.active_consumer a USING durable_notify.consumer_group g
     WHERE g.name = group_name AND a.group_id = g.id AND a.consumer = resign_active.consumer
    RETURNING a.group_id INTO left_group;
    PERFORM durable_notify._ring_group(left_group);
    RETURN left_group IS NOT NULL;
END
$function$;

CALL durable_notify._grantable('resign_active', '{consume}', $$_require('consume', NULL, group_name)$$);
