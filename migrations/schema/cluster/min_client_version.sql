CREATE FUNCTION durable_notify.min_client_version() RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
    -- The schema version of the oldest package that works with this schema. Newer packages do, too:
    -- during an upgrade, the release before keeps running. A revision that removes something replaces
    -- this.
    SELECT '0001'::text
$function$;

CALL durable_notify._grantable('min_client_version', '{publish,insert,observe,read,consume,maintain}');
