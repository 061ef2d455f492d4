CREATE FUNCTION durable_notify._discover_one() RETURNS bigint
LANGUAGE plpgsql
SET lock_timeout = '50ms'
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    group_name text;
BEGIN
    -- Have a group discover the topics that its patterns match, if no consumer claims for it now;
    -- returns 1, or 0: there is none, or not now. Until it has, nothing is removed from them; see
    -- _all_settled_watermark().
    SELECT g.name INTO group_name
      FROM durable_notify._topics() AS t (topic)
      JOIN durable_notify.group_pattern p ON t.topic ~ durable_notify._topic_regex(p.pattern)
      JOIN durable_notify.consumer_group g ON g.id = p.group_id
     WHERE NOT EXISTS (SELECT FROM durable_notify.subscription s WHERE s.group_id = p.group_id AND s.topic = t.topic)
     LIMIT 1;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    PERFORM durable_notify._block_removal();
    PERFORM durable_notify._lock_group(group_name);  -- discover() would wait for longer
    PERFORM durable_notify.discover(group_name, '{}');
    RETURN 1;
EXCEPTION WHEN lock_not_available OR SQLSTATE 'DN005' THEN  -- busy, or deleted meanwhile
    RETURN 0;
END
$function$;
