CREATE FUNCTION durable_notify.empty_all(keep_groups boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    emptied text;
    until timestamptz := pg_catalog.clock_timestamp() + '5 seconds';
BEGIN
    -- Remove all messages and everything that was recorded about them, for tests: TRUNCATE leaves the
    -- schema unusable.
    --
    -- This also deletes the groups; with keep_groups they start again, with their options, topics and
    -- pauses. What was set up stays: grants, retention, wake-ups, mirrors, watched tables, operator
    -- events, schedules, the settings of partitions. Ids are not drawn again. For the owner of the schema. SQLSTATE 55P03: other
    -- transactions used the tables for 5 seconds.
    PERFORM durable_notify._lock_functions();
    SELECT pg_catalog.string_agg(pg_catalog.format('durable_notify.%I', c.relname), ', ' ORDER BY c.oid) INTO emptied
      FROM pg_catalog.pg_class c
     WHERE c.relnamespace = 'durable_notify'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
       AND c.relname <> ALL ('{schema_version,access,topic_retention,record_age,topic_notify_policy,topic_mirror,partition_settings,capture,operator_event,schedule}'::text[])
       AND NOT (keep_groups AND c.relname = ANY ('{consumer_group,ordering,group_pattern,subscription,webhook}'::text[]));
    LOOP
        -- Trap: a session that waits for a lock while it holds others can block one that holds what it
        -- waits for, such as a claim.
        BEGIN
            EXECUTE pg_catalog.format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE NOWAIT', emptied);
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF pg_catalog.clock_timestamp() > until THEN
                RAISE EXCEPTION 'other transactions use the tables of durable_notify'
                    USING ERRCODE = '55P03', HINT = 'Commit or roll back the transactions that use them: usually a connection of the test itself.';
            END IF;
        END;
        PERFORM pg_catalog.pg_sleep(0.02 * pg_catalog.random());
    END LOOP;
    PERFORM durable_notify._swap_partition(NULL, l.copied, NULL) FROM durable_notify.partition_settings l WHERE l.copied IS NOT NULL;
    SELECT pg_catalog.string_agg(t.name, ', ') INTO emptied
      FROM pg_catalog.regexp_split_to_table(emptied, ', ') AS t (name) WHERE pg_catalog.to_regclass(t.name) IS NOT NULL;
    EXECUTE pg_catalog.format('TRUNCATE %s', emptied);
    IF keep_groups THEN
        INSERT INTO durable_notify.position (subscription_id, seq, s0, h0, s1, h1, p, lease_tokens)
        SELECT s.id, 1, '3:3:', 0, NULL, NULL, 0, '{}' FROM durable_notify.subscription s;
    END IF;
    -- Closed partitions are open again by the outbox's own trigger; see _outbox_after_truncate().
    UPDATE durable_notify.partition_settings SET copied = NULL, copied_by = NULL;
    PERFORM durable_notify._record_cluster();
END
$function$;
