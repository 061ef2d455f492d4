CREATE FUNCTION durable_notify.others_at_work() RETURNS text[]
LANGUAGE sql VOLATILE AS $function$
    -- The transactions of others in this database, by virtual id, which those that only read have, too: who
    -- has a snapshot is one of them.
    SELECT COALESCE(pg_catalog.array_agg(l.virtualxid), '{}')
      FROM pg_catalog.pg_locks l
     WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND l.pid <> pg_catalog.pg_backend_pid()
       AND NOT EXISTS (
           SELECT FROM pg_catalog.pg_stat_activity a
            WHERE a.pid = l.pid
              AND a.datid <> (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))
$function$;
