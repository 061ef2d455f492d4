CREATE FUNCTION durable_notify._is_owner() RETURNS boolean
LANGUAGE sql STABLE AS $function$
    -- Return whether the caller is the owner of the tables, by name, as a member or as a superuser.
    --
    -- Functions that other roles may call, too, ask this first. The owner continues with its own
    -- rights, which PostgreSQL checks; a wrong answer lets no role in. Every other role goes to the
    -- function's twin, _name_granted(), which runs with the owner's rights and reads the table access.
    SELECT pg_catalog.has_table_privilege('durable_notify.outbox'::pg_catalog.regclass, 'TRUNCATE')
$function$;

CREATE FUNCTION durable_notify._calling_role() RETURNS name
LANGUAGE sql STABLE AS $function$
    -- The role of the session, or the one that it has SET ROLE to: in a function that runs with its
    -- owner's rights, current_user is the owner.
    SELECT COALESCE(NULLIF(pg_catalog.current_setting('role'), 'none'), SESSION_USER::text)::name
$function$;

CALL durable_notify._grantable('_is_owner', '{publish,insert,observe,read,consume,maintain}');
