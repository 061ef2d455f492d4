CREATE FUNCTION durable_notify._percent_encode(value text, bad text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
    -- Write each letter of a text that matches the regular expression bad as %XX, one for each byte of
    -- its UTF-8.
    -- Trap: without E, and with standard_conforming_strings = off, \1 would be a control character.
    SELECT CASE WHEN value !~ bad THEN value ELSE (
        SELECT pg_catalog.string_agg(
                   CASE WHEN c.letter ~ bad
                        THEN pg_catalog.regexp_replace(
                            pg_catalog.upper(pg_catalog.encode(pg_catalog.convert_to(c.letter, 'UTF8'), 'hex')), '(..)', E'%\\1', 'g')
                        ELSE c.letter END, '' ORDER BY c.ord)
          FROM pg_catalog.regexp_split_to_table(value, '') WITH ORDINALITY AS c (letter, ord)) END
$function$;

CALL durable_notify._grantable('_percent_encode', '{publish}');
