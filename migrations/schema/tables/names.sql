CREATE FUNCTION durable_notify._has_controls(name text, or_space boolean) RETURNS boolean
LANGUAGE sql STABLE STRICT PARALLEL SAFE AS $function$
    -- Return whether a name contains a control character or white space: U+0001 to U+0020, U+007F to
    -- U+00A0.
    --
    -- Trap: escapes in a regular expression are numbers of the database's own encoding. In WIN1252 the
    -- euro is \u0080. If one of those is found, the name is checked in UTF-8.
    SELECT CASE WHEN name OPERATOR(pg_catalog.!~) E'[\\u0001-\\u0020\\u007f-\\u00a0]' THEN false
                ELSE pg_catalog.encode(pg_catalog.convert_to(name, 'UTF8'), 'hex') OPERATOR(pg_catalog.~)
                     CASE WHEN or_space THEN '^(..)*([01].|20|7f|c2[89].|c2a0)' ELSE '^(..)*([01].|7f|c2[89].)' END END
$function$;

CALL durable_notify._grantable('_has_controls', '{insert}');
