CREATE FUNCTION durable_notify.unnotified_transactions() RETURNS xid8[]
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
    -- The transactions of others, in progress now, that may have looked at a doorbell and not rung it:
    -- what they make deliverable comes without a wake-up for a consumer that has armed a bell since.
    --
    -- Take it after arming. Trap: taken before, it leaves out a publisher that looks in between. A
    -- publisher that looked before is in it, or has ended, and its commit is visible: a transaction
    -- leaves the list of running ones before it releases its locks. Isolation levels do not matter:
    -- locks are not read through a snapshot.
    SELECT COALESCE(pg_catalog.array_agg((late.last_xid + late.distance)::text::xid8), '{}')
      FROM (SELECT now.last_xid,
                   -- how far past it, or before it: an xid is the last 32 bits of an xid8
                   ((w.xid::text::bigint - now.last_xid + 2147483648) & 4294967295) - 2147483648 AS distance
              FROM (SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint) AS now (last_xid)
             CROSS JOIN LATERAL pg_catalog.unnest(
                   durable_notify._open_writers('{durable_notify.outbox,durable_notify.lock_rings}')) AS w (xid)) AS late
$function$;

CALL durable_notify._grantable('unnotified_transactions', '{read,consume}');
