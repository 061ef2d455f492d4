CREATE FUNCTION durable_notify.webhooks(group_name text DEFAULT NULL) RETURNS TABLE (
    name text, url text, topics text[], options jsonb, secrets text[], salt uuid, secret_version integer,
    old_secret_until timestamptz, failing_since timestamptz, failure text, paused_at timestamptz,
    created_at timestamptz, changed_at timestamptz, exclusive boolean
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- The endpoints of webhooks that the caller may consume from, or one of them. The URL may have a token,
    -- and headers a password: roles that only observe do not see them.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._webhooks_granted(group_name);
        RETURN;
    END IF;
    RETURN QUERY
    SELECT g.name, w.url, w.topics, w.options, w.secrets, w.salt, w.secret_version, w.old_secret_until,
           w.failing_since, w.failure, g.paused_at, w.created_at, w.changed_at, g.exclusive
      FROM durable_notify.webhook w JOIN durable_notify.consumer_group g ON g.id = w.group_id
     WHERE webhooks.group_name IS NULL OR g.name = webhooks.group_name
     ORDER BY g.name;
END
$function$;

CALL durable_notify._grantable('webhooks', '{consume}', $$_require('consume', NULL, group_name, true)$$,
    visible => $$_has_grant('consume', NULL, f.name)$$);
