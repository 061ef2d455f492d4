CREATE FUNCTION durable_notify.watch(
    watched regclass, topic text, columns text[] DEFAULT NULL, with_old boolean DEFAULT true
) RETURNS void
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '3s' AS $function$
#variable_conflict use_variable
DECLARE
    numbers int2[];
    unknown text[];
    name text := durable_notify.watch_name(topic);
BEGIN
    -- Publish every insert, update, delete and truncate of a table to a topic from here on: triggers, in
    -- the transaction of whoever writes. columns: only these, and updates that change one of them.
    -- with_old: updates have the old values, too. Watched anew, what was said before is replaced.
    --
    -- For the owner of this schema, with the right to make triggers on the table. It waits for those
    -- who write to it, at most 3 seconds (SQLSTATE 55P03: try again). The primary key is the messages'
    -- key; a partition has no primary key columns other than its table's, and needs no watch of its own.
    IF topic IS NULL OR pg_catalog.octet_length(topic) NOT BETWEEN 1 AND 255 OR topic ~ '[\u0001-\u0020\u007f-\u00a0*>]' THEN
        RAISE EXCEPTION '"%" is no name of a topic', topic USING ERRCODE = '22023', HINT = 'Nothing was changed.';
    END IF;
    IF (SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = watched) IN ('durable_notify', 'pg_catalog') THEN
        RAISE EXCEPTION '% cannot be watched', watched
            USING ERRCODE = '22023', HINT = 'Watch tables of your own. Nothing was changed.';
    END IF;
    IF columns IS NOT NULL THEN
        SELECT pg_catalog.array_agg(a.attnum), pg_catalog.array_agg(c.name) FILTER (WHERE a.attnum IS NULL)
          INTO numbers, unknown
          FROM pg_catalog.unnest(columns) AS c (name)
          LEFT JOIN pg_catalog.pg_attribute a
            ON a.attrelid = watched AND a.attname = c.name AND a.attnum > 0 AND NOT a.attisdropped;
        IF unknown IS NOT NULL OR COALESCE(pg_catalog.cardinality(numbers), 0) = 0 THEN
            RAISE EXCEPTION 'table % has no column %', watched, pg_catalog.array_to_string(unknown, ', ')
                USING ERRCODE = '22023', HINT = 'Name one column or more. Nothing was changed.';
        END IF;
    END IF;
    PERFORM durable_notify.unwatch(watched, topic);
    EXECUTE pg_catalog.format(
        'CREATE TRIGGER %I AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION durable_notify.watched(%L, %L, %L)',
        name, watched, topic, COALESCE(numbers::text, ''), with_old);
    EXECUTE pg_catalog.format(
        'CREATE TRIGGER %I AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION durable_notify.watched(%L, %L, %L)',
        name || '_truncate', watched, topic, '', with_old);
END
$function$;
