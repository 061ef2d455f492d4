CREATE FUNCTION durable_notify.is_referenced(leaf regclass) RETURNS boolean
LANGUAGE sql STABLE AS $function$
    -- Whether a foreign key of another table leads to a leaf, or to the whole log: PostgreSQL refuses to empty
    -- it by TRUNCATE then, or to put another in its place. Row by row messages go, as the key says.
    SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint k
                    WHERE k.contype = 'f' AND k.confrelid IN (leaf, 'durable_notify.outbox'::regclass))
$function$;
