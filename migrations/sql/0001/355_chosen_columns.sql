CREATE FUNCTION durable_notify.chosen_columns(watched regclass, content jsonb, columns int2[]) RETURNS jsonb
LANGUAGE sql STABLE AS $function$
    -- Of a row the columns with some numbers; NULL: all of them.
    SELECT CASE WHEN columns IS NULL THEN content ELSE COALESCE((
        SELECT pg_catalog.jsonb_object_agg(a.attname, content -> a.attname)
          FROM pg_catalog.pg_attribute a
         WHERE a.attrelid = watched AND a.attnum = ANY (columns) AND NOT a.attisdropped), '{}') END
$function$;
