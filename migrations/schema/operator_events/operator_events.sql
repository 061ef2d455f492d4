CREATE FUNCTION durable_notify.operator_events() RETURNS TABLE (
    kind text, group_name text, set_at timestamptz, set_by text
)
LANGUAGE sql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
    -- Which kinds of operator events are published, and of which group (NULL: of all).
    SELECT e.kind, NULLIF(e.group_name, ''), e.set_at, e.set_by FROM durable_notify.operator_event e
     ORDER BY e.kind, e.group_name
$function$;
