CREATE FUNCTION durable_notify._grantable_functions() RETURNS TABLE (function text, actions text[])
LANGUAGE sql IMMUTABLE AS $function$
    -- What roles may call that were granted an action. _grantable() writes it, as each function's file
    -- declares. Not a table: TRUNCATE would empty it, and a dump or logical replication would bring it
    -- twice.
    VALUES (NULL::text, NULL::text[])
$function$;

CREATE PROCEDURE durable_notify._grantable(
    function text, actions text[], guard text DEFAULT NULL, next text DEFAULT NULL, visible text DEFAULT NULL
)
LANGUAGE plpgsql
SET search_path = pg_catalog, durable_notify, pg_temp AS $procedure$
#variable_conflict use_variable
DECLARE
    granted pg_catalog.pg_proc;
    names text;
    outs text;
    call text;
BEGIN
    -- Declare the actions of which a role needs one to call a function. This stands in the function's
    -- file; a function without it is for the owner only. See grant_access(). Once everything is
    -- created, this procedure is dropped. For a function in inlined/ the declaration stands with the
    -- function that rewrites it.
    --
    -- guard: what the function's twin _name_granted() checks first; next: statements after that;
    -- visible: which of the rows f it returns. The twin runs with the owner's rights, and calls the
    -- function. Without a guard there is no twin: the function runs with the rights of its caller, or
    -- its twin is written by hand, as _publish_granted().
    EXECUTE pg_catalog.format(
        'CREATE OR REPLACE FUNCTION durable_notify._grantable_functions() RETURNS TABLE (function text, actions text[])'
        ' LANGUAGE sql IMMUTABLE AS %L',
        (SELECT pg_catalog.rtrim(p.prosrc, E'\n') || pg_catalog.format(E',\n        (%L, %L)\n', function, actions)
           FROM pg_catalog.pg_proc p WHERE p.oid = 'durable_notify._grantable_functions()'::regprocedure));
    IF guard IS NULL THEN
        RETURN;
    END IF;
    SELECT p.* INTO STRICT granted FROM pg_catalog.pg_proc p
     WHERE p.pronamespace = 'durable_notify'::regnamespace AND p.proname = function;
    SELECT pg_catalog.string_agg(a.name, ', ' ORDER BY a.ord) FILTER (WHERE COALESCE(a.mode, 'i') = 'i'),
           pg_catalog.string_agg(a.name, ', ' ORDER BY a.ord) FILTER (WHERE a.mode = 'o')
      INTO names, outs
      FROM ROWS FROM (pg_catalog.unnest(granted.proargnames), pg_catalog.unnest(granted.proargmodes::text[]))
           WITH ORDINALITY AS a (name, mode, ord);
    call := pg_catalog.format('durable_notify.%s(%s)', function, names);
    EXECUTE pg_catalog.format(
        $$CREATE FUNCTION durable_notify._%s_granted(%s) RETURNS %s LANGUAGE plpgsql %s SECURITY DEFINER
          SET search_path = pg_catalog, durable_notify, pg_temp SET standard_conforming_strings = on AS %L$$,
        function, pg_catalog.pg_get_function_identity_arguments(granted.oid), pg_catalog.pg_get_function_result(granted.oid),
        CASE granted.provolatile WHEN 's' THEN 'STABLE' ELSE 'VOLATILE' END,
        pg_catalog.format(E'\n#variable_conflict use_variable\nBEGIN\n'
            '    -- %1$s() for roles that were granted it; %1$s() calls this by itself.\n'
            '    PERFORM durable_notify.%2$s;%3$s\n    %4$s\nEND\n',
            function, guard, pg_catalog.rtrim(next, E'\n'),
            CASE WHEN visible IS NOT NULL
                 -- A role that observes everything sees all rows: that is asked once, not for each.
                 THEN pg_catalog.format('RETURN QUERY SELECT f.* FROM %s AS f WHERE %sdurable_notify.%s;', call,
                      CASE WHEN visible ~ '^_can_observe' THEN $$(SELECT durable_notify._has_grant('observe', NULL, NULL)) OR $$ END, visible)
                 WHEN granted.proretset THEN pg_catalog.format('RETURN QUERY SELECT * FROM %s;', call)
                 WHEN outs IS NOT NULL THEN pg_catalog.format('SELECT f.* INTO %s FROM %s AS f;', outs, call)
                 WHEN granted.prorettype = 'void'::regtype THEN pg_catalog.format('PERFORM %s;', call)
                 ELSE pg_catalog.format('RETURN %s;', call) END));
END
$procedure$;
