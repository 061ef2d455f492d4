CREATE FUNCTION durable_notify._ring(topic text, hint text) RETURNS void
LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    -- Wake the consumers that wait for a topic: what this transaction has done makes a message
    -- deliverable.
    --
    -- Everything but publishing that does so calls this afterwards. hint: an id, 0, or * if other
    -- topics of a group may have something, too. No consumer relies on it.
    -- The lock comes before the look and is kept until the commit is visible: by it a consumer that
    -- arms in between finds that a transaction may not have seen it; see unnotified_transactions().
    LOCK TABLE durable_notify.lock_rings IN ROW EXCLUSIVE MODE;
    PERFORM pg_catalog.pg_current_xact_id();
    PERFORM durable_notify._notify_waiters(topic, hint);
END
$function$;

CREATE FUNCTION durable_notify._ring_group(group_id integer) RETURNS void
LANGUAGE sql AS $function$
    -- Wake the consumers of a group: something may be deliverable that was not.
    SELECT durable_notify._ring(s.topic, '*')
      FROM durable_notify.subscription s
     WHERE s.group_id = _ring_group.group_id
$function$;
