CREATE FUNCTION durable_notify.chosen_columns(changed regclass, content jsonb, chosen jsonb) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
    -- Of a row the columns that columns_watched() names; all of them, where none were chosen.
    SELECT CASE WHEN chosen IS NULL THEN content ELSE COALESCE((
        SELECT pg_catalog.jsonb_object_agg(c.name, content -> c.name)
          FROM pg_catalog.unnest(durable_notify.columns_watched(changed, chosen)) AS c (name)
         WHERE content ? c.name), '{}') END
$function$;
