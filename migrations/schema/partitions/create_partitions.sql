CREATE FUNCTION durable_notify.create_partitions() RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp SET lock_timeout = '40ms' SET jit = off AS $function$
DECLARE
    layout durable_notify.partition_settings;
    drawn bigint;
    last_end bigint;
    ready integer;
    first_id bigint;
    width bigint;
    next_start bigint;
    patience text := '500ms';
BEGIN
    -- Create a partition of the outbox if fewer than wanted are ready ahead, or do a step towards one;
    -- returns how many steps were done. Call it, each time in a transaction of its own, until that is
    -- 0: there is nothing to do, or it cannot be done now, since another session holds the locks it
    -- needs, or publishes for long. It waits for each lock for 40 ms at most; publishing works without
    -- new partitions. If none is ready, it waits for publishers for longer, once.
    -- Trap: of many publishers with transactions of 100 ms, one always runs for more than 40.
    IF NOT durable_notify._lock_partitions() THEN
        RETURN 0;
    END IF;
    SELECT * INTO layout FROM durable_notify.partition_settings;
    layout.min_width := COALESCE(layout.min_width, 1000000);
    layout.ahead := COALESCE(layout.ahead, 2);
    drawn := COALESCE(pg_catalog.pg_sequence_last_value('durable_notify.outbox_id_seq'), 0);
    SELECT COALESCE(pg_catalog.max(p.next_id), 1), pg_catalog.count(*) FILTER (WHERE p.first_id > GREATEST(drawn, 1)),
           -- Few partitions: each claim locks them all. The more is kept, the wider they are.
           pg_catalog.sum(LEAST(p.next_id, drawn) - p.first_id) FILTER (WHERE p.first_id <= drawn) / 5,
           pg_catalog.min(p.first_id) FILTER (WHERE p.next_id > drawn)
      INTO last_end, ready, width, next_start FROM durable_notify.partitions() p;
    width := GREATEST(width, layout.min_width);
    IF next_start - drawn > layout.min_width THEN
        PERFORM pg_catalog.set_config('lock_timeout', patience, true);
        PERFORM durable_notify._advance_sequence(next_start);
        RETURN 1;
    END IF;
    IF ready >= layout.ahead AND last_end > drawn THEN
        RETURN 0;
    END IF;
    first_id := durable_notify._next_partition_start(drawn, last_end, layout.min_width);
    IF first_id IS NOT NULL THEN
        IF ready = 0 THEN
            PERFORM pg_catalog.set_config('lock_timeout', patience, true);
        END IF;
        PERFORM durable_notify._create_partition(first_id, first_id + width);
        ALTER TABLE durable_notify.outbox_default DROP CONSTRAINT IF EXISTS outbox_default_relief;
    END IF;
    RETURN 1;
EXCEPTION WHEN lock_not_available OR check_violation THEN  -- ids are past the begin of the new partition
    RETURN 0;
END
$function$;

CREATE FUNCTION durable_notify._next_partition_start(drawn bigint, last_end bigint, min_width bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    relief record;
BEGIN
    -- Where the next partition of the outbox begins: where the last one ends, unless ids are past that
    -- and in outbox_default. NULL: not yet known, call again in another transaction.
    --
    -- Attaching a partition reads outbox_default under a lock that keeps readers out: a moment, if it
    -- is small. If it is not small, a constraint says what it does not contain. The constraint is added
    -- without a check of the existing rows, validated without blocking others, and dropped when the
    -- partition is attached (create_partitions()).
    -- Trap: once ids have come so far, the constraint also refuses what is published. Dropping it needs
    -- a lock that a backup bars, and the session that added it may have died. So it begins farther
    -- ahead than ids come in days, and _advance_sequence() skips those in between. A constraint that
    -- was left behind is handled first here, and dropped before ids come near it.
    SELECT k.convalidated, c.bound[1]::bigint AS max_id INTO relief
      FROM pg_catalog.pg_constraint k
     CROSS JOIN LATERAL pg_catalog.regexp_match(pg_catalog.pg_get_constraintdef(k.oid), E'(\\d+)') AS c (bound)
     WHERE k.conrelid = 'durable_notify.outbox_default'::regclass AND k.conname = 'outbox_default_relief';
    IF relief.max_id - drawn < 5 * min_width OR relief.max_id < last_end THEN
        ALTER TABLE durable_notify.outbox_default DROP CONSTRAINT outbox_default_relief;
    ELSIF relief.convalidated THEN
        RETURN relief.max_id;
    ELSIF relief.max_id IS NOT NULL THEN
        ALTER TABLE durable_notify.outbox_default VALIDATE CONSTRAINT outbox_default_relief;
    ELSIF pg_catalog.pg_relation_size('durable_notify.outbox_default') > 16777216 THEN
        EXECUTE pg_catalog.format(
            'ALTER TABLE durable_notify.outbox_default ADD CONSTRAINT outbox_default_relief CHECK (id < %s) NOT VALID',
            GREATEST(drawn, last_end) + 10000 * min_width);
    ELSIF last_end > drawn THEN
        RETURN last_end;
    ELSE
        RETURN drawn + 1 + min_width / 10;  -- above what is drawn until the partition exists
    END IF;
    RETURN NULL;
END
$function$;

CREATE FUNCTION durable_notify._create_partition(first_id bigint, next_id bigint) RETURNS void
LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    partition text := pg_catalog.format('durable_notify.outbox_%s', first_id);
BEGIN
    -- Create a partition of the outbox for a range of ids.
    --
    -- Trap: CREATE TABLE ... PARTITION OF locks the whole outbox, against readers too. ATTACH does not:
    -- it locks outbox_default, and reads it, unless a constraint says that it contains nothing in the
    -- range.
    -- Trap: ATTACH does not wait for publishers either. A statement that began before, and draws an id
    -- of the partition, does not see it: outbox_default refuses the row. This lasts to the end of the
    -- statement, and maybe of the transaction. So the partition is created while no transaction
    -- publishes; a long one postpones it.
    EXECUTE pg_catalog.format(
        'CREATE TABLE %s (LIKE durable_notify.outbox INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING COMPRESSION)'
        ' WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, vacuum_truncate = off)',
        partition);
    -- Trap: commit would wait for a synchronous standby with the lock held.
    PERFORM pg_catalog.set_config('synchronous_commit', 'local', true);
    LOCK TABLE ONLY durable_notify.outbox IN SHARE MODE;
    PERFORM pg_catalog.set_config('lock_timeout', '40ms', true);  -- publishers wait for this
    EXECUTE pg_catalog.format(
        'ALTER TABLE durable_notify.outbox ATTACH PARTITION %s FOR VALUES FROM (%s) TO (%s)', partition, first_id, next_id);
END
$function$;

CREATE FUNCTION durable_notify._advance_sequence(first_id bigint) RETURNS void
LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    -- Advance the sequence to the begin of a partition that is far ahead; the ids in between are never
    -- drawn.
    --
    -- Trap: setval() could go back, and have ids drawn twice, if others draw meanwhile. ALTER SEQUENCE
    -- takes a lock that keeps them out, once all that have drawn have ended; the first one is for the
    -- lock alone.
    ALTER SEQUENCE durable_notify.outbox_id_seq INCREMENT 1;
    IF COALESCE(pg_catalog.pg_sequence_last_value('durable_notify.outbox_id_seq'), 0) < first_id - 1 THEN
        EXECUTE pg_catalog.format('ALTER SEQUENCE durable_notify.outbox_id_seq RESTART %s', first_id - 1);
        PERFORM pg_catalog.nextval('durable_notify.outbox_id_seq');
    END IF;
END
$function$;
