CREATE FUNCTION durable_notify.renew_active(group_name text, consumer text, lease interval) RETURNS boolean
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- A sign of life from the active consumer of an exclusive group; false from any other consumer.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._renew_active_granted(group_name, consumer, lease);
    END IF;
    UPDATE durable_notify.active_consumer a SET deadline = pg_catalog.clock_timestamp() + lease
      FROM durable_notify.consumer_group g
     WHERE g.name = group_name AND a.group_id = g.id AND a.consumer = renew_active.consumer;
    RETURN FOUND;
END
$function$;

CALL durable_notify._grantable('renew_active', '{consume}', $$_require('consume', NULL, group_name)$$);
