CREATE FUNCTION durable_notify.armed(topic text) RETURNS boolean
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
    -- Whether this session has armed the doorbell of a topic with arm().
    --
    -- It looks for the doorbell's lock, and for one of its own, 'dntk' and another hash. Trap: either
    -- alone proves nothing: a topic with the same hash has it, too.
    SELECT pg_catalog.count(DISTINCT l.classid) = 2
      FROM pg_catalog.pg_locks l
     WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND (l.classid, l.objid) IN (
               (durable_notify._doorbell_class()::oid, (pg_catalog.hashtext(topic)::bigint & 4294967295)::oid),
               (1685024363::oid, (durable_notify._topic_mark(topic)::bigint & 4294967295)::oid))
       AND l.mode = 'ShareLock' AND l.pid = pg_catalog.pg_backend_pid() AND l.granted
$function$;

CALL durable_notify._grantable('armed', '{read,consume}');
