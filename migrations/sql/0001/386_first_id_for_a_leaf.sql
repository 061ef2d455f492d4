CREATE FUNCTION durable_notify.first_id_for_a_leaf(drawn bigint, last_leaf bigint, min_width bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    relief record;
BEGIN
    -- Where the next leaf of the log begins: where the last one ends, unless ids have come further and are
    -- in outbox_default. NULL: not yet known, call again in another transaction.
    --
    -- To attach a leaf has outbox_default read under a lock that keeps readers out: a moment, if it is
    -- small. If it is not, a constraint says what is not in it: added without a look at what is there,
    -- proven while everybody goes on, and dropped with the leaf attached (make_partitions()).
    -- Trap: it also refuses what is published, once ids have come so far. To drop it needs a lock that a
    -- backup bars, and whoever added it may have died. So it is farther ahead than ids come in days, and
    -- skip_to_leaf() leaves out those in between. One that was left behind comes first here, and goes
    -- before ids come near it.
    SELECT k.convalidated, c.bound[1]::bigint AS upto INTO relief
      FROM pg_catalog.pg_constraint k
     CROSS JOIN LATERAL pg_catalog.regexp_match(pg_catalog.pg_get_constraintdef(k.oid), E'(\\d+)') AS c (bound)
     WHERE k.conrelid = 'durable_notify.outbox_default'::regclass AND k.conname = 'outbox_default_relief';
    IF relief.upto - drawn < 5 * min_width OR relief.upto < last_leaf THEN
        ALTER TABLE durable_notify.outbox_default DROP CONSTRAINT outbox_default_relief;
    ELSIF relief.convalidated THEN
        RETURN relief.upto;
    ELSIF relief.upto IS NOT NULL THEN
        ALTER TABLE durable_notify.outbox_default VALIDATE CONSTRAINT outbox_default_relief;
    ELSIF pg_catalog.pg_relation_size('durable_notify.outbox_default') > 16777216 THEN
        EXECUTE pg_catalog.format(
            'ALTER TABLE durable_notify.outbox_default ADD CONSTRAINT outbox_default_relief CHECK (id < %s) NOT VALID',
            GREATEST(drawn, last_leaf) + 10000 * min_width);
    ELSIF last_leaf > drawn THEN
        RETURN last_leaf;
    ELSE
        RETURN drawn + 1 + min_width / 10;  -- above what is drawn until the leaf is there
    END IF;
    RETURN NULL;
END
$function$;
