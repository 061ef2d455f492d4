CREATE FUNCTION durable_notify.armed(topic text) RETURNS boolean
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
    -- Whether this session has armed the doorbell of a topic with arm().
    --
    -- By a lock of its own, 'dntk' and another hash. Trap: the doorbell's own lock says nothing: a topic of the
    -- same hash has it, too, and who disarms one would disarm both.
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_locks l
         WHERE l.locktype = 'advisory' AND l.classid = 1685024363
           AND l.objid = (durable_notify.topic_mark(topic)::bigint & 4294967295)::oid AND l.objsubid = 2
           AND l.mode = 'ShareLock' AND l.pid = pg_catalog.pg_backend_pid() AND l.granted)
$function$;
