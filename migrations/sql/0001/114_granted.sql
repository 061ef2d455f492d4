CREATE FUNCTION durable_notify.granted(action text, pattern text, group_name text) RETURNS boolean
LANGUAGE plpgsql STABLE AS $function$
#variable_conflict use_column
DECLARE
    asking name := durable_notify.caller();
BEGIN
    -- Whether the caller was granted an action on a topic, or on all that a pattern stands for, and on a
    -- group; NULL stands for any. Only functions that run with the owner's rights call this.
    --
    -- Trap: the session of the owner or a superuser must not count. It does not come this way (see
    -- has_own_rights()) unless it runs something as somebody else: autovacuum evaluates the indexed
    -- expressions of a table as the table's owner, in a session that is a superuser's.
    RETURN NOT pg_catalog.has_table_privilege(asking, 'durable_notify.outbox'::regclass, 'TRUNCATE')
       AND EXISTS (
           SELECT FROM durable_notify.access a
            WHERE a.action = granted.action
              AND (granted.group_name IS NULL OR a.group_name = granted.group_name)
              -- Of a pattern, * is a word like others, and > is not, unless what was granted ends so.
              AND (granted.pattern IS NULL
                   OR granted.pattern ~ a.regex
                      AND (pg_catalog.strpos(granted.pattern, '>') = 0 OR pg_catalog.right(a.pattern, 1) = '>'))
              AND pg_catalog.pg_has_role(asking, a.role::oid, 'USAGE'));
END
$function$;
