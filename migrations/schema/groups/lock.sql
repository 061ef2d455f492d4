CREATE FUNCTION durable_notify._group_lock_hijacked(group_id integer) RETURNS boolean
LANGUAGE sql VOLATILE AS $function$
    -- Return whether another session has a group's advisory lock without the lock on the table
    -- lock_groups that _acquire_group_lock() takes. It looks at pg_locks once: two looks could
    -- contradict each other.
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
                WHERE h.locktype = 'relation' AND h.relation = 'durable_notify.lock_groups'::regclass
                  AND h.virtualtransaction = a.virtualtransaction AND h.pid IS NOT DISTINCT FROM a.pid))
$function$;

CREATE FUNCTION durable_notify._acquire_group_lock(group_id integer) RETURNS void
LANGUAGE plpgsql AS $function$
DECLARE
    patience text;
    since timestamptz;
BEGIN
    -- Hold a group, alone, until the transaction ends; waits for at most the lock_timeout in force.
    --
    -- It takes an advisory lock, and then the table lock_groups in a mode that many sessions can have.
    -- 1685024361 is 'dnti'; docs/how-it-works.md lists all classes of advisory locks.
    -- Trap: any role that can connect can keep the advisory lock for ever. Only roles with rights on
    -- the table can lock the table. If a stranger keeps the advisory lock, the table alone does as
    -- well, in a mode that excludes all others that hold a group.
    IF pg_catalog.pg_try_advisory_xact_lock(1685024361, group_id) THEN
        LOCK TABLE durable_notify.lock_groups IN ROW EXCLUSIVE MODE;
        RETURN;
    END IF;
    patience := pg_catalog.current_setting('lock_timeout');
    since := pg_catalog.clock_timestamp();
    LOOP
        BEGIN
            IF patience = '0' OR patience::interval > interval '1 second' THEN
                PERFORM pg_catalog.set_config('lock_timeout', '1s', true);
            END IF;
            PERFORM pg_catalog.pg_advisory_xact_lock(1685024361, group_id);
            LOCK TABLE durable_notify.lock_groups IN ROW EXCLUSIVE MODE;
            PERFORM pg_catalog.set_config('lock_timeout', patience, true);
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            EXIT WHEN durable_notify._group_lock_hijacked(group_id);
            IF patience <> '0' AND pg_catalog.clock_timestamp() >= since + patience::interval THEN
                RAISE EXCEPTION 'an open transaction has the lock of group "%"',
                    (SELECT g.name FROM durable_notify.consumer_group g WHERE g.id = _acquire_group_lock.group_id)
                    USING ERRCODE = '55P03',
                          HINT = 'Nothing was changed. Try again when it has ended; pg_stat_activity shows it.';
            END IF;
        END;
    END LOOP;
    LOCK TABLE durable_notify.lock_groups IN SHARE ROW EXCLUSIVE MODE;
END
$function$;

CREATE FUNCTION durable_notify._lock_group(group_name text) RETURNS durable_notify.consumer_group
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    group_id integer;
    is_free boolean;
    options durable_notify.consumer_group;
BEGIN
    -- Take the lock under which a group's positions change, until the transaction ends; returns the
    -- group. Waits for at most the lock_timeout in force.
    --
    -- SQLSTATE DN010: the outbox came from another cluster, and reanchor() has not been run; see the
    -- table cluster_identity.
    SELECT g.id, pg_catalog.pg_try_advisory_xact_lock(1685024361, g.id) INTO group_id, is_free
      FROM durable_notify.consumer_group g WHERE g.name = _lock_group.group_name;
    IF is_free THEN
        LOCK TABLE durable_notify.lock_groups IN ROW EXCLUSIVE MODE;  -- as _acquire_group_lock() does
    ELSIF group_id IS NOT NULL THEN
        PERFORM durable_notify._acquire_group_lock(group_id);
    END IF;
    -- Trap: the session that had the lock until now may have deleted the group, or renamed it.
    SELECT g.* INTO options FROM durable_notify.consumer_group g
     WHERE g.id = group_id AND g.name = _lock_group.group_name
       AND ARRAY(SELECT a.xmin = a.xid FROM durable_notify.cluster_identity a) = '{t,t}';
    IF options.id IS NULL THEN
        IF EXISTS (SELECT FROM durable_notify.consumer_group g WHERE g.id = group_id AND g.name = _lock_group.group_name) THEN
            PERFORM durable_notify._raise_foreign_cluster();
        END IF;
        RAISE EXCEPTION 'there is no consumer group "%"', group_name
            USING ERRCODE = 'DN005',
                  HINT = 'durable_notify.subscribe() creates a group; durable_notify.status() lists them.';
    END IF;
    RETURN options;
END
$function$;

CREATE FUNCTION durable_notify._lock_group_and(
    group_name text, change text, new_order text DEFAULT NULL, topics text[] DEFAULT NULL
) RETURNS integer
LANGUAGE plpgsql
SET lock_timeout = '1s' AS $function$
#variable_conflict use_column
DECLARE
    changed integer;
    since timestamptz := pg_catalog.clock_timestamp();
BEGIN
    -- Take a group's lock, and the rows that a change of it needs, which open transactions of handlers
    -- may have locked: its order (if new_order is another one), its name, or what is to be deleted: some
    -- topics, or all. Returns its id.
    --
    -- All at once or none: if the rows are locked, it releases the group's lock and lets its claims
    -- through. Gives up after 5 seconds.
    LOOP
        BEGIN
            changed := (durable_notify._lock_group(group_name)).id;
            CASE change
                WHEN 'order' THEN
                    PERFORM FROM durable_notify.ordering o JOIN durable_notify.consumer_group g ON g.id = o.group_id
                      WHERE o.group_id = changed AND g.order_by <> new_order FOR UPDATE OF o NOWAIT;
                WHEN 'name' THEN
                    PERFORM FROM durable_notify.consumer_group g WHERE g.id = changed FOR UPDATE NOWAIT;
                WHEN 'all' THEN
                    PERFORM FROM durable_notify.consumer_group g WHERE g.id = changed FOR UPDATE NOWAIT;
                    PERFORM FROM durable_notify.ordering o WHERE o.group_id = changed FOR UPDATE NOWAIT;
                    PERFORM FROM durable_notify.active_consumer a WHERE a.group_id = changed FOR UPDATE NOWAIT;
                    PERFORM durable_notify._lock_subscriptions(changed, NULL);
                WHEN 'topics' THEN
                    PERFORM durable_notify._lock_subscriptions(changed, topics);
            END CASE;
            RETURN changed;
        EXCEPTION WHEN lock_not_available THEN
            -- What was locked in the block is free again.
            IF pg_catalog.clock_timestamp() > since + interval '5 seconds' THEN
                RAISE EXCEPTION 'group "%" is in use: an open transaction has its lock, or rows that this needs', group_name
                    USING ERRCODE = '55P03',
                          HINT = 'Nothing was changed. Try again when the transactions of its handlers have ended: pg_stat_activity shows them.';
            END IF;
        END;
        PERFORM pg_catalog.pg_sleep(0.02);
    END LOOP;
END
$function$;

CREATE FUNCTION durable_notify._lock_subscriptions(group_id integer, topics text[]) RETURNS void
LANGUAGE plpgsql AS $function$
#variable_conflict use_variable
DECLARE
    ids integer[] := ARRAY(
        SELECT s.id FROM durable_notify.subscription s
         WHERE s.group_id = _lock_subscriptions.group_id
           AND (topics IS NULL OR s.topic = ANY (topics)
                OR EXISTS (SELECT FROM pg_catalog.unnest(topics) AS t (topic)
                            WHERE t.topic ~ '[*>]' AND s.topic ~ durable_notify._topic_regex(t.topic))));
BEGIN
    -- Lock a group's subscriptions to some topics or patterns (NULL: to all), and what hangs on them
    -- that open transactions of handlers may have locked; fail at once if one has.
    PERFORM FROM durable_notify.subscription s WHERE s.id = ANY (ids) FOR UPDATE NOWAIT;
    PERFORM FROM durable_notify.replay_job j WHERE j.subscription_id = ANY (ids) FOR UPDATE NOWAIT;
    PERFORM FROM durable_notify.lease l WHERE l.subscription_id = ANY (ids) FOR UPDATE NOWAIT;
END
$function$;
