CREATE FUNCTION durable_notify.held_by_strangers(group_id integer) RETURNS boolean
LANGUAGE sql VOLATILE AS $function$
    -- Whether somebody has a group's advisory lock who does not hold the table holding, as hold_group()
    -- does. One look at pg_locks, or what is there would not fit together.
    WITH locks AS MATERIALIZED (
        SELECT l.locktype, l.relation, l.classid, l.objid, l.objsubid, l.virtualtransaction, l.pid
          FROM pg_catalog.pg_locks l
         WHERE l.granted AND l.locktype IN ('advisory', 'relation')
           AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))
    SELECT EXISTS (
        SELECT FROM locks a
         WHERE a.locktype = 'advisory' AND a.classid = 1685024361 AND a.objid = group_id::oid AND a.objsubid = 2
           AND NOT EXISTS (
               SELECT FROM locks h
                WHERE h.locktype = 'relation' AND h.relation = 'durable_notify.holding'::regclass
                  AND h.virtualtransaction = a.virtualtransaction AND h.pid IS NOT DISTINCT FROM a.pid))
$function$;
