CREATE FUNCTION durable_notify._rewrite_partition() RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '40ms' SET jit = off
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    layout durable_notify.partition_settings;
    partition record;
BEGIN
    -- Do a step of rewriting a partition of which most rows were removed one by one, to give its disk
    -- space back; returns 1, or 0: nothing to do, or not now. Each step runs in a transaction of its
    -- own. Messages keep all they have: where a row is stored does not matter.
    --
    -- The partition is copied; when every snapshot sees the copy, the copy takes its place. Trap: not
    -- at once. The copy's rows are invisible to older snapshots, such as that of a claim that waits for
    -- this lock, or of a backup: they would find no messages, and the claim would skip them for good.
    IF NOT durable_notify._lock_partitions() THEN
        RETURN 0;
    END IF;
    SELECT * INTO layout FROM durable_notify.partition_settings;
    IF layout.copied IS NULL THEN
        SELECT p.* INTO partition FROM durable_notify.partitions() p
          JOIN pg_catalog.pg_stat_user_tables u ON u.relid = p.name
         WHERE p.next_id <= layout.closed_below
           AND NOT durable_notify._is_referenced(p.name)
           AND u.n_tup_del > u.n_tup_ins / 2 AND pg_catalog.pg_relation_size(p.name) > 65536
         ORDER BY p.first_id LIMIT 1;
        IF NOT FOUND THEN
            RETURN 0;
        END IF;
        PERFORM durable_notify._copy_partition(partition.name, partition.first_id, partition.next_id);
        UPDATE durable_notify.partition_settings SET copied = partition.first_id, copied_by = pg_catalog.pg_current_xact_id();
    ELSIF EXISTS (SELECT FROM durable_notify._older_snapshots(layout.copied_by)) THEN
        RETURN 0;
    ELSE
        SELECT p.* INTO partition FROM durable_notify.partitions() p WHERE p.first_id = layout.copied;
        PERFORM durable_notify._swap_partition(partition.name, layout.copied, partition.next_id);
        UPDATE durable_notify.partition_settings SET copied = NULL, copied_by = NULL;
    END IF;
    RETURN 1;
EXCEPTION WHEN lock_not_available THEN
    RETURN 0;
END
$function$;

CREATE FUNCTION durable_notify._copy_partition(partition regclass, first_id bigint, next_id bigint) RETURNS void
LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    -- Copy a closed partition of the outbox to a table that can take its place; see
    -- _rewrite_partition().
    EXECUTE pg_catalog.format(
        'CREATE TABLE durable_notify.outbox_%2$s_copy ('
        ' LIKE durable_notify.outbox INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING COMPRESSION,'
        ' CONSTRAINT outbox_bounds CHECK (id >= %2$s AND id < %3$s))'
        ' WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, vacuum_truncate = off);'
        ' INSERT INTO durable_notify.outbox_%2$s_copy SELECT * FROM %1$s ORDER BY id;'
        ' ALTER TABLE durable_notify.outbox_%2$s_copy ADD PRIMARY KEY (topic, id);'
        ' CREATE INDEX ON durable_notify.outbox_%2$s_copy (topic, xid, id)',
        partition, first_id, next_id);
END
$function$;
