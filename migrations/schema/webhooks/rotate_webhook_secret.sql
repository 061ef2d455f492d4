CREATE FUNCTION durable_notify.rotate_webhook_secret(group_name text, overlap interval DEFAULT '24 hours') RETURNS integer
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    old durable_notify.webhook;
BEGIN
    -- Give an endpoint another derived secret; returns its version. For the time of the overlap, messages are
    -- signed with the one before as well; 0: that, and each before it, is invalid at once.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._rotate_webhook_secret_granted(group_name, overlap);
    END IF;
    IF (overlap BETWEEN '0' AND '1 year') IS NOT TRUE THEN
        RAISE EXCEPTION 'overlap is 0 to 1 year' USING ERRCODE = '22023', HINT = 'Nothing was changed.';
    END IF;
    old := durable_notify._locked_webhook(group_name);
    IF old.secrets <> '{}' THEN
        RAISE EXCEPTION 'the secrets of endpoint "%" are not derived', group_name
            USING ERRCODE = '22023', HINT = 'Change what is at their places, or name others with change_webhook(). Nothing was changed.';
    END IF;
    IF overlap > '0' AND old.old_secret_until > pg_catalog.clock_timestamp() THEN
        RAISE EXCEPTION 'the secret before is still valid, until %', old.old_secret_until
            USING ERRCODE = '22023', HINT = 'An overlap of 0 makes all earlier ones invalid at once. Nothing was changed.';
    END IF;
    UPDATE durable_notify.webhook w
       SET secret_version = old.secret_version + 1,
           old_secret_until = CASE WHEN overlap > '0' THEN pg_catalog.clock_timestamp() + overlap END,
           changed_at = pg_catalog.clock_timestamp()
     WHERE w.group_id = old.group_id;
    PERFORM durable_notify._record_webhook('rotate webhook secret', group_name, pg_catalog.jsonb_build_object(
        'version', old.secret_version + 1, 'overlap', overlap));
    RETURN old.secret_version + 1;
END
$function$;

CALL durable_notify._grantable('rotate_webhook_secret', '{consume}', $$_require('consume', durable_notify._webhook_topics(group_name), group_name)$$);
