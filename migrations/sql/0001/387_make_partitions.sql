CREATE FUNCTION durable_notify.make_partitions() RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp SET lock_timeout = '40ms' SET jit = off AS $function$
DECLARE
    layout durable_notify.log_layout;
    drawn bigint;
    last_leaf bigint;
    ready integer;
    first_id bigint;
    width bigint;
    next_leaf bigint;
    patience text := '500ms';
BEGIN
    -- Make a leaf of the log where fewer than wanted are ready ahead, or a step towards one; returns how many
    -- steps were made. Call it, each time in a transaction of its own, until that is 0: nothing to do, or
    -- not now, since another session holds the locks it needs, or publishes for long. It waits for each of them for 40 ms
    -- at most; publishing works without. Where none is ready, it waits for publishers for longer, once.
    -- Trap: of many with transactions of 100 ms there is always one that goes on for more than 40.
    IF NOT durable_notify.hold_leaves() THEN
        RETURN 0;
    END IF;
    SELECT * INTO layout FROM durable_notify.log_layout;
    layout.min_width := COALESCE(layout.min_width, 1000000);
    layout.ahead := COALESCE(layout.ahead, 2);
    drawn := COALESCE(pg_catalog.pg_sequence_last_value('durable_notify.outbox_id_seq'), 0);
    SELECT COALESCE(pg_catalog.max(l.next_id), 1), pg_catalog.count(*) FILTER (WHERE l.first_id > GREATEST(drawn, 1)),
           -- Few leaves: each claim locks them all. What is kept grows, and they grow with it.
           pg_catalog.sum(LEAST(l.next_id, drawn) - l.first_id) FILTER (WHERE l.first_id <= drawn) / 5,
           pg_catalog.min(l.first_id) FILTER (WHERE l.next_id > drawn)
      INTO last_leaf, ready, width, next_leaf FROM durable_notify.leaves() l;
    width := GREATEST(width, layout.min_width);
    IF next_leaf - drawn > layout.min_width THEN
        PERFORM pg_catalog.set_config('lock_timeout', patience, true);
        PERFORM durable_notify.skip_to_leaf(next_leaf);
        RETURN 1;
    END IF;
    IF ready >= layout.ahead AND last_leaf > drawn THEN
        RETURN 0;
    END IF;
    first_id := durable_notify.first_id_for_a_leaf(drawn, last_leaf, layout.min_width);
    IF first_id IS NOT NULL THEN
        IF ready = 0 THEN
            PERFORM pg_catalog.set_config('lock_timeout', patience, true);
        END IF;
        PERFORM durable_notify.make_leaf(first_id, first_id + width);
        ALTER TABLE durable_notify.outbox_default DROP CONSTRAINT IF EXISTS outbox_default_relief;
    END IF;
    RETURN 1;
EXCEPTION WHEN lock_not_available OR check_violation THEN  -- ids have come past where the leaf was to begin
    RETURN 0;
END
$function$;
DO $block$ BEGIN WHILE durable_notify.make_partitions() > 0 LOOP END LOOP; END $block$;
