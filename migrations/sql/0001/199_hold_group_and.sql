CREATE FUNCTION durable_notify.hold_group_and(group_name text, change text, new_order text DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql
SET lock_timeout = '1s' AS $function$
#variable_conflict use_column
DECLARE
    changed integer;
    since timestamptz := pg_catalog.clock_timestamp();
BEGIN
    -- Take a group's lock, and the rows that a change of it needs, which open transactions of handlers may have:
    -- its order (where new_order is another one), its name, or all that is to be deleted. Returns its id.
    --
    -- All at once or none: while the rows cannot be had, the group's lock is let go, and its claims go
    -- through. Gives up after 5 seconds.
    LOOP
        BEGIN
            changed := durable_notify.group_lock(group_name);
            CASE change
                WHEN 'order' THEN
                    PERFORM FROM durable_notify.ordering o JOIN durable_notify.consumer_group g ON g.id = o.group_id
                      WHERE o.group_id = changed AND g.order_by <> new_order FOR UPDATE OF o NOWAIT;
                WHEN 'name' THEN
                    PERFORM FROM durable_notify.consumer_group g WHERE g.id = changed FOR UPDATE NOWAIT;
                WHEN 'all' THEN
                    PERFORM FROM durable_notify.consumer_group g WHERE g.id = changed FOR UPDATE NOWAIT;
                    PERFORM FROM durable_notify.ordering o WHERE o.group_id = changed FOR UPDATE NOWAIT;
                    PERFORM FROM durable_notify.active a WHERE a.group_id = changed FOR UPDATE NOWAIT;
                    PERFORM FROM durable_notify.subscription s WHERE s.group_id = changed FOR UPDATE NOWAIT;
                    PERFORM FROM durable_notify.replay_job j JOIN durable_notify.subscription s ON s.id = j.subscription_id
                      WHERE s.group_id = changed FOR UPDATE OF j NOWAIT;
                    PERFORM FROM durable_notify.lease l JOIN durable_notify.subscription s ON s.id = l.subscription_id
                      WHERE s.group_id = changed FOR UPDATE OF l NOWAIT;
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
