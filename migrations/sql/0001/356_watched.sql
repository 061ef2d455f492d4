CREATE FUNCTION durable_notify.watched() RETURNS trigger
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
    -- primary key as the key. A change of the primary key is a delete and an insert, so that messages
    -- of a key are of one row. With columns chosen, an update that changes none of them is no news.
    --
    -- With the rights of the owner of this schema, so that who writes to the table needs none here.
    -- Whoever writes, a value, and so a key, is written the same: hence the settings.
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO durable_notify.outbox (topic, payload) VALUES (topic, about || '{"op": "truncate"}');
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        old_row := pg_catalog.to_jsonb(OLD);
        old_key := durable_notify.key_of_row(TG_RELID, old_row);
        old_row := durable_notify.chosen_columns(TG_RELID, old_row, chosen);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        new_row := pg_catalog.to_jsonb(NEW);
        new_key := durable_notify.key_of_row(TG_RELID, new_row);
        new_row := durable_notify.chosen_columns(TG_RELID, new_row, chosen);
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
