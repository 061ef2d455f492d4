CREATE FUNCTION durable_notify.topics() RETURNS TABLE (topic text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- The topics that have messages and that the caller may read.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._topics_granted();
        RETURN;
    END IF;
    RETURN QUERY SELECT t FROM durable_notify._topics() AS t;
END
$function$;

CREATE FUNCTION durable_notify._topics() RETURNS SETOF text
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $function$
BEGIN
    -- The topics that have messages. A loose index scan: one probe a topic, however many there are.
    RETURN QUERY
    WITH RECURSIVE topics AS (
        (SELECT o.topic FROM durable_notify.outbox o ORDER BY o.topic LIMIT 1)
        UNION ALL
        SELECT (SELECT o.topic FROM durable_notify.outbox o WHERE o.topic > t.topic ORDER BY o.topic LIMIT 1)
          FROM topics t WHERE t.topic IS NOT NULL)
    SELECT t.topic FROM topics t WHERE t.topic IS NOT NULL;
END
$function$;

CALL durable_notify._grantable('topics', '{read}', $$_require('read')$$,
    visible => $$_has_grant('read', f.topic, NULL)$$);
