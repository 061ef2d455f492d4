CREATE FUNCTION durable_notify.hold_group(group_id integer) RETURNS void
LANGUAGE plpgsql AS $function$
DECLARE
    patience text;
    since timestamptz;
BEGIN
    -- Hold a group, alone, until the transaction ends; waits for at most the lock_timeout in force.
    --
    -- By an advisory lock, and after that the table holding in a mode that many can have. 1685024361 is
    -- 'dnti': two-key advisory locks are this library's by that first key. Trap: any role that can
    -- connect can keep the advisory lock for ever. Nobody else can have the table: where a stranger keeps
    -- the one, the other alone does as well, in a mode that nobody else who holds a group can have.
    IF pg_catalog.pg_try_advisory_xact_lock(1685024361, group_id) THEN
        LOCK TABLE durable_notify.holding IN ROW EXCLUSIVE MODE;
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
            LOCK TABLE durable_notify.holding IN ROW EXCLUSIVE MODE;
            PERFORM pg_catalog.set_config('lock_timeout', patience, true);
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            EXIT WHEN durable_notify.held_by_strangers(group_id);
            IF patience <> '0' AND pg_catalog.clock_timestamp() >= since + patience::interval THEN
                RAISE EXCEPTION 'an open transaction has the lock of group "%"',
                    (SELECT g.name FROM durable_notify.consumer_group g WHERE g.id = hold_group.group_id)
                    USING ERRCODE = '55P03',
                          HINT = 'Nothing was changed. Try again when it has ended; pg_stat_activity shows it.';
            END IF;
        END;
    END LOOP;
    LOCK TABLE durable_notify.holding IN SHARE ROW EXCLUSIVE MODE;
END
$function$;
