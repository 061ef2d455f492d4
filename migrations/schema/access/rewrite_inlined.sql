CREATE FUNCTION durable_notify._rewrite_inlined(function regprocedure, cases text, otherwise text) RETURNS void
LANGUAGE plpgsql AS $function$
BEGIN
    -- Rewrite a function of inlined/, which PostgreSQL inlines where it is called, to return what the
    -- first of some cases (WHEN ... THEN ...) says; without cases, or if none fits, otherwise. The
    -- caller has called _lock_functions().
    --
    -- Its documentation stays: all that is before SELECT.
    EXECUTE (
        SELECT pg_catalog.format(
               'CREATE OR REPLACE FUNCTION durable_notify.%I(%s) RETURNS %s LANGUAGE sql IMMUTABLE PARALLEL SAFE AS %L',
               p.proname, pg_catalog.pg_get_function_arguments(p.oid), pg_catalog.pg_get_function_result(p.oid),
               pg_catalog.regexp_replace(p.prosrc, 'SELECT .*$', '') || CASE
                   WHEN cases IS NULL THEN pg_catalog.format(E'SELECT %s\n', otherwise)
                   ELSE pg_catalog.format(E'SELECT CASE %s ELSE %s END\n', cases, otherwise) END)
          FROM pg_catalog.pg_proc p WHERE p.oid = function);
END
$function$;
