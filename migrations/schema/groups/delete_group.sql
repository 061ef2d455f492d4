CREATE FUNCTION durable_notify.delete_group(group_name text) RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '5s'
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    deleted integer := durable_notify._lock_group_and(group_name, 'all');
BEGIN
    -- Delete a group: its positions, leases, retries and dead letters. The messages stay in the outbox,
    -- for other groups and for a group of this name that is created later. Running consumers end with
    -- an error at their next claim; what they settle is refused.
    PERFORM durable_notify._record_audit('delete', group_name);
    PERFORM durable_notify._ring_group(deleted);
    PERFORM durable_notify._delete_subscriptions(ARRAY(
        SELECT s.id FROM durable_notify.subscription s WHERE s.group_id = deleted));
    DELETE FROM durable_notify.watermark w WHERE w.group_id = deleted;
    DELETE FROM durable_notify.consumer_group g WHERE g.id = deleted;
END
$function$;
