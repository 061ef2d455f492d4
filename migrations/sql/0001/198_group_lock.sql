CREATE FUNCTION durable_notify.group_lock(group_name text) RETURNS integer
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    group_id integer;
    is_there boolean;
    is_here boolean;
BEGIN
    -- Take the lock under which a group's positions change, until the transaction ends; returns
    -- the group's id. Waits for at most the lock_timeout in force.
    --
    -- SQLSTATE DN010: the log came from another cluster, and reanchor() has not been run; see the
    -- table anchor.
    SELECT g.id INTO group_id FROM durable_notify.consumer_group g WHERE g.name = group_lock.group_name;
    IF group_id IS NOT NULL THEN
        PERFORM durable_notify.hold_group(group_id);
        -- Trap: who had the lock until now may have deleted the group, or given it another name.
        SELECT (SELECT g.name = group_lock.group_name FROM durable_notify.consumer_group g WHERE g.id = group_id),
               (SELECT pg_catalog.count(*) = 2 AND pg_catalog.bool_and(a.xmin = a.xid) FROM durable_notify.anchor a)
          INTO is_there, is_here;
    END IF;
    IF is_there IS NOT TRUE THEN
        RAISE EXCEPTION 'there is no consumer group "%"', group_name
            USING ERRCODE = 'DN005',
                  HINT = 'durable_notify.subscribe() creates a group; durable_notify.status() lists them.';
    END IF;
    IF is_here IS NOT TRUE THEN
        PERFORM durable_notify.raise_elsewhere();
    END IF;
    RETURN group_id;
END
$function$;
