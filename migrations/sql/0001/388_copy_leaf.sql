CREATE FUNCTION durable_notify.copy_leaf(leaf regclass, first_id bigint, next_id bigint) RETURNS void
LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    -- Copy a closed leaf of the log to a table that can take its place; see repack_leaf().
    EXECUTE pg_catalog.format(
        'CREATE TABLE durable_notify.outbox_%2$s_anew ('
        ' LIKE durable_notify.outbox INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING COMPRESSION,'
        ' CONSTRAINT outbox_bounds CHECK (id >= %2$s AND id < %3$s))'
        ' WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, vacuum_truncate = off);'
        ' INSERT INTO durable_notify.outbox_%2$s_anew SELECT * FROM %1$s ORDER BY id;'
        ' ALTER TABLE durable_notify.outbox_%2$s_anew ADD PRIMARY KEY (topic, id);'
        ' CREATE INDEX ON durable_notify.outbox_%2$s_anew (topic, xid, id);'
        ' CREATE INDEX ON durable_notify.outbox_%2$s_anew USING brin (created_at)',
        leaf, first_id, next_id);
END
$function$;
