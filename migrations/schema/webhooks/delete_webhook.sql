CREATE FUNCTION durable_notify.delete_webhook(group_name text) RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
BEGIN
    -- Delete an endpoint with its group: its position, retries and dead letters. The messages stay.
    IF NOT durable_notify._is_owner() THEN
        PERFORM durable_notify._delete_webhook_granted(group_name);
        RETURN;
    END IF;
    PERFORM durable_notify._locked_webhook(group_name);
    PERFORM durable_notify.delete_group(group_name);
    PERFORM durable_notify._ring_webhooks();
END
$function$;

CALL durable_notify._grantable('delete_webhook', '{consume}', $$_require('consume', durable_notify._webhook_topics(group_name), group_name)$$);
