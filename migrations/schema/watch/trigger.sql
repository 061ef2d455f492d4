CREATE FUNCTION durable_notify._watch_trigger() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, durable_notify, pg_temp SET standard_conforming_strings = on
SET TimeZone = 'UTC' SET IntervalStyle = 'postgres' SET bytea_output = 'hex' SET extra_float_digits = 1 AS $function$
DECLARE
    topic text := TG_ARGV[0];
    chosen jsonb := NULLIF(TG_ARGV[1], '')::jsonb;
    with_old boolean := TG_ARGV[2]::boolean;
    old_row jsonb;
    new_row jsonb;
    old_key text;
    new_key text;
    about jsonb := pg_catalog.jsonb_build_object(
        'table', COALESCE(pg_catalog.pg_partition_root(TG_RELID), TG_RELID::regclass)::text);
BEGIN
    -- Publish a change of a row that watch() watches: {"table", "op", "new", "old"}, with the row's
    -- primary key as the key. A change of the primary key is a delete and an insert, so that the
    -- messages of a key are of one row. With columns chosen, an update that changes none of them is not
    -- published.
    --
    -- It runs with the rights of the owner of this schema, so that a session that writes to the table
    -- needs none here. A value, and so a key, is written the same in every session: hence the settings.
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO durable_notify.outbox (topic, payload) VALUES (topic, about || '{"op": "truncate"}');
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        old_row := pg_catalog.to_jsonb(OLD);
        old_key := durable_notify._row_key(TG_RELID, old_row);
        old_row := durable_notify._pick_columns(TG_RELID, old_row, chosen);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        new_row := pg_catalog.to_jsonb(NEW);
        new_key := durable_notify._row_key(TG_RELID, new_row);
        new_row := durable_notify._pick_columns(TG_RELID, new_row, chosen);
    END IF;
    IF TG_OP = 'UPDATE' AND old_key IS NOT DISTINCT FROM new_key THEN
        IF chosen IS NOT NULL AND old_row = new_row THEN
            RETURN NULL;
        END IF;
        about := about || pg_catalog.jsonb_build_object('op', 'update', 'new', new_row);
        IF with_old THEN
            about := about || pg_catalog.jsonb_build_object('old', old_row);
        END IF;
        INSERT INTO durable_notify.outbox (topic, key, payload) VALUES (topic, new_key, about);
        RETURN NULL;
    END IF;
    IF old_row IS NOT NULL THEN
        INSERT INTO durable_notify.outbox (topic, key, payload)
        VALUES (topic, old_key, about || pg_catalog.jsonb_build_object('op', 'delete', 'old', old_row));
    END IF;
    IF new_row IS NOT NULL THEN
        INSERT INTO durable_notify.outbox (topic, key, payload)
        VALUES (topic, new_key, about || pg_catalog.jsonb_build_object('op', 'insert', 'new', new_row));
    END IF;
    RETURN NULL;
END
$function$;

CREATE FUNCTION durable_notify._row_key(watched regclass, content jsonb) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    key_values jsonb;
    key text;
BEGIN
    -- A row's primary key as the key of a message: of one column its value, of several a JSON array of
    -- them. NULL if the table has none. What a key cannot contain, and %, becomes %XX; an empty one
    -- becomes %, and one that is too long %md5: and its hash.
    SELECT pg_catalog.jsonb_agg(content -> a.attname::text ORDER BY k.ord) INTO key_values
      FROM pg_catalog.pg_index i
     CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, ord)
      JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
     WHERE i.indrelid = watched AND i.indisprimary AND k.ord <= i.indnkeyatts;  -- not what it INCLUDEs
    key := CASE pg_catalog.jsonb_array_length(key_values) WHEN 1 THEN key_values ->> 0 ELSE key_values::text END;
    IF key ~ E'[\\u0001-\\u001f\\u007f-\\u009f%]' THEN  -- seldom
        key := durable_notify._percent_encode(key, E'[\\u0001-\\u001f\\u007f-\\u009f%]');
    END IF;
    RETURN CASE WHEN key = '' THEN '%' WHEN pg_catalog.octet_length(key) > 1024 THEN '%md5:' || pg_catalog.md5(key) ELSE key END;
END
$function$;

CREATE FUNCTION durable_notify._watched_columns(changed regclass, chosen jsonb) RETURNS text[]
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
    -- The present names of the columns that watch() was given: {"table", "numbers", "names"} as of
    -- then.
    --
    -- By their numbers, which survive a renamed column, if the table is still that table, or a
    -- partition of it. Otherwise by the names: after a dump was restored it is another table, in which
    -- the numbers may stand for other columns.
    SELECT CASE WHEN same.it_is THEN ARRAY(
                SELECT a.attname::text FROM pg_catalog.pg_attribute a
                 WHERE a.attrelid = (chosen ->> 'table')::oid AND NOT a.attisdropped
                   AND chosen -> 'numbers' @> pg_catalog.to_jsonb(a.attnum)
                 ORDER BY a.attnum)
           ELSE ARRAY(SELECT pg_catalog.jsonb_array_elements_text(chosen -> 'names')) END
      FROM (SELECT (chosen ->> 'table')::oid = changed::oid
                OR (chosen ->> 'table')::oid IN (SELECT pg_catalog.pg_partition_ancestors(changed)::oid)) AS same (it_is)
$function$;

CREATE FUNCTION durable_notify._pick_columns(changed regclass, content jsonb, chosen jsonb) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
    -- The columns of a row that _watched_columns() names; all of them, if none were chosen.
    SELECT CASE WHEN chosen IS NULL THEN content ELSE COALESCE((
        SELECT pg_catalog.jsonb_object_agg(c.name, content -> c.name)
          FROM pg_catalog.unnest(durable_notify._watched_columns(changed, chosen)) AS c (name)
         WHERE content ? c.name), '{}') END
$function$;
