CREATE FUNCTION durable_notify.repack_leaf() RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '40ms' SET jit = off
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    part record;
    name text;
BEGIN
    -- Write a leaf anew of which most was removed row by row, so that its disk space comes back; returns 1,
    -- or 0: there is none, or not now. Messages keep all they have: where they lie is nobody's business.
    --
    -- Nothing is added to a closed leaf, and hold_removing() keeps what is there. The log is locked when all
    -- is copied, for as long as it takes to put one leaf in the place of the other.
    SELECT l.* INTO part FROM durable_notify.leaves() l
      JOIN pg_catalog.pg_stat_user_tables u ON u.relid = l.leaf
     WHERE l.next_id <= (SELECT y.closed_below FROM durable_notify.log_layout y)
       AND u.n_tup_del > u.n_tup_ins / 2 AND pg_catalog.pg_relation_size(l.leaf) > 65536
     ORDER BY l.first_id LIMIT 1;
    IF part.leaf IS NULL OR NOT durable_notify.hold_removing() THEN
        RETURN 0;
    END IF;
    BEGIN
        LOCK TABLE durable_notify.outbox IN ACCESS EXCLUSIVE MODE;  -- not to copy in vain
        RAISE division_by_zero;
    EXCEPTION WHEN division_by_zero THEN
        NULL;  -- rolled back, and unlocked
    END;
    PERFORM pg_catalog.set_config('synchronous_commit', 'local', true);  -- see remove_leaf()
    name := pg_catalog.format('durable_notify.outbox_%s', part.first_id);
    EXECUTE pg_catalog.format(
        'CREATE TABLE %1$s_anew (LIKE durable_notify.outbox INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING COMPRESSION,'
        ' CONSTRAINT outbox_bounds CHECK (id >= %3$s AND id < %4$s))'
        ' WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, vacuum_truncate = off);'
        ' INSERT INTO %1$s_anew SELECT * FROM %2$s ORDER BY id;'
        ' ALTER TABLE %1$s_anew ADD PRIMARY KEY (topic, id);'
        ' CREATE INDEX ON %1$s_anew (topic, xid, id);'
        ' CREATE INDEX ON %1$s_anew USING brin (created_at)',
        name, part.leaf, part.first_id, part.next_id);
    LOCK TABLE durable_notify.outbox IN ACCESS EXCLUSIVE MODE;
    EXECUTE pg_catalog.format(
        'ALTER TABLE durable_notify.outbox DETACH PARTITION %2$s;'
        ' DROP TABLE %2$s;'
        ' ALTER TABLE durable_notify.outbox ATTACH PARTITION %1$s_anew FOR VALUES FROM (%3$s) TO (%4$s);'
        ' ALTER TABLE %1$s_anew DROP CONSTRAINT outbox_bounds;'
        ' ALTER TABLE %1$s_anew RENAME TO outbox_%3$s',
        name, part.leaf, part.first_id, part.next_id);
    RETURN 1;
EXCEPTION WHEN lock_not_available THEN
    RETURN 0;
END
$function$;
