CREATE FUNCTION durable_notify.still_running(xids xid8[]) RETURNS xid8[]
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
    -- Those of some transactions that have not ended. What the others have committed is visible to all
    -- that read after this.
    SELECT COALESCE(pg_catalog.array_agg(x.xid), '{}')
      FROM pg_catalog.unnest(xids) AS x (xid)
     WHERE NOT pg_catalog.pg_visible_in_snapshot(x.xid, pg_catalog.pg_current_snapshot())
$function$;

CALL durable_notify._grantable('still_running', '{read,consume}');
