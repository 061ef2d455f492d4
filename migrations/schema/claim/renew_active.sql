CREATE FUNCTION durable_notify.stay_active(group_name text, consumer text, lease interval) RETURNS boolean
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- A sign of life from the active consumer of an exclusive group; false from anybody else.
    IF NOT durable_notify.has_own_rights() THEN
        RETURN durable_notify.stay_active_granted(group_name, consumer, lease);
    END IF;
    UPDATE durable_notify.active a SET deadline = pg_catalog.clock_timestamp() + lease
      FROM durable_notify.consumer_group g
     WHERE g.name = group_name AND a.group_id = g.id AND a.consumer = stay_active.consumer;
    RETURN FOUND;
END
$function$;
