CREATE FUNCTION durable_notify.watch(
    watched regclass, topic text, columns text[] DEFAULT NULL, with_old boolean DEFAULT true
) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp SET lock_timeout = '3s' AS $function$
#variable_conflict use_variable
DECLARE
    chosen text;
    unknown text;
    trigger_name text := durable_notify._watch_trigger_name(topic);
BEGIN
    -- From now on, publish every insert, update, delete and truncate of a table to a topic: by
    -- triggers, in the transaction that writes. columns: only these, and updates that change one of
    -- them. with_old: updates have the old values, too. Watching again replaces the earlier settings.
    --
    -- For the owner of this schema, with the right to create triggers on the table. It waits for
    -- sessions that write to it, at most 3 seconds (SQLSTATE 55P03: try again), unless the table is
    -- watched like this already. The primary key is the
    -- messages' key. A partition needs no watch of its own; if only the partition is truncated, or
    -- detached, that is not published.
    IF topic IS NULL OR pg_catalog.octet_length(topic) NOT BETWEEN 1 AND 255 OR durable_notify._has_controls(topic, true) OR topic ~ '[*>]' THEN
        RAISE EXCEPTION 'invalid topic name "%"', topic
            USING ERRCODE = '22023', HINT = 'A topic has 1 to 255 bytes, no white space, control characters, * or >. Nothing was changed.';
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = watched AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
           AND n.nspname NOT IN ('durable_notify', 'pg_catalog', 'information_schema')) THEN
        RAISE EXCEPTION '% cannot be watched', COALESCE(watched::text, 'a table that does not exist')
            USING ERRCODE = '22023',
                  HINT = 'Watch a table of your own: no view, foreign or temporary table, nor one of this library. Nothing was changed.';
    END IF;
    IF columns IS NOT NULL THEN
        SELECT pg_catalog.string_agg(COALESCE(pg_catalog.quote_ident(c.name), 'NULL'), ', ' ORDER BY c.ord)
                   FILTER (WHERE a.attnum IS NULL),
               pg_catalog.jsonb_build_object(
                   'table', watched::oid::bigint, 'numbers', pg_catalog.jsonb_agg(a.attnum), 'names', pg_catalog.jsonb_agg(c.name))
          INTO unknown, chosen
          FROM pg_catalog.unnest(columns) WITH ORDINALITY AS c (name, ord)
          LEFT JOIN pg_catalog.pg_attribute a
            ON a.attrelid = watched AND a.attname = c.name AND a.attnum > 0 AND NOT a.attisdropped;
        IF unknown IS NOT NULL OR pg_catalog.cardinality(columns) = 0 THEN
            RAISE EXCEPTION '%', COALESCE('table ' || watched::text || ' has no column ' || unknown, 'no columns to watch')
                USING ERRCODE = '22023', HINT = 'Name one column or more, as the catalog has them; NULL: all. Nothing was changed.';
        END IF;
    END IF;
    IF durable_notify._is_watched_so(watched, trigger_name, topic, COALESCE(chosen, ''), COALESCE(with_old, true))
       AND durable_notify._is_watched_so(watched, trigger_name || '_truncate', topic, '', true) THEN
        RETURN;
    END IF;
    EXECUTE pg_catalog.format(
        'CREATE OR REPLACE TRIGGER %I AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION durable_notify._watch_trigger(%L, %L, %L)',
        trigger_name, watched, topic, COALESCE(chosen, ''), COALESCE(with_old, true));
    EXECUTE pg_catalog.format(
        'CREATE OR REPLACE TRIGGER %I AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION durable_notify._watch_trigger(%L, %L, %L)',
        trigger_name || '_truncate', watched, topic, '', true);
END
$function$;

CREATE FUNCTION durable_notify._is_watched_so(
    watched regclass, trigger_name text, topic text, columns text, with_old boolean
) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
    -- Whether a table has a trigger of watch() with these arguments, and it is enabled in every partition.
    SELECT pg_catalog.bool_and(t.tgenabled = 'O') AND pg_catalog.bool_or(t.tgrelid = watched AND t.tgargs = (
               SELECT pg_catalog.string_agg(  -- each ends with a zero byte
                          pg_catalog.convert_to(a.word, pg_catalog.getdatabaseencoding()) || pg_catalog.decode('00', 'hex'), '' ORDER BY a.ord)
                 FROM (VALUES (1, topic), (2, columns), (3, CASE WHEN with_old THEN 't' ELSE 'f' END)) AS a (ord, word)))
      FROM pg_catalog.pg_trigger t
     WHERE t.tgname = trigger_name AND t.tgfoid = 'durable_notify._watch_trigger()'::regprocedure
       AND (t.tgrelid = watched OR t.tgrelid IN (SELECT p.relid FROM pg_catalog.pg_partition_tree(watched) AS p))
$function$;
