CREATE FUNCTION durable_notify.key_of_row(watched regclass, content jsonb) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    key_values jsonb;
    key text;
BEGIN
    -- A row's primary key as the key of a message: of one column its value, of several a JSON array of
    -- them. NULL where the table has none. What a key cannot have in it, and %, becomes %XX; an empty
    -- one %, and what is too long %md5: and its hash.
    SELECT pg_catalog.jsonb_agg(content -> a.attname::text ORDER BY k.place) INTO key_values
      FROM pg_catalog.pg_index i
     CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
      JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
     WHERE i.indrelid = watched AND i.indisprimary AND k.place <= i.indnkeyatts;  -- not what it INCLUDEs
    key := CASE pg_catalog.jsonb_array_length(key_values) WHEN 1 THEN key_values ->> 0 ELSE key_values::text END;
    IF key ~ E'[\\u0001-\\u001f\\u007f-\\u009f%]' THEN  -- seldom
        key := durable_notify.escaped(key, E'[\\u0001-\\u001f\\u007f-\\u009f%]');
    END IF;
    RETURN CASE WHEN key = '' THEN '%' WHEN pg_catalog.octet_length(key) > 1024 THEN '%md5:' || pg_catalog.md5(key) ELSE key END;
END
$function$;
