CREATE FUNCTION durable_notify._measure_topic(topic text) RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET lock_timeout = '1s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    from_id bigint;
    found record;
BEGIN
    -- Measure how much the next stretch of a topic takes, 2,000 messages at most; returns how many
    -- there were, 0: all is measured. As stored, compressed or not, plus 200 bytes for the row's own
    -- fields and its index entries.
    INSERT INTO durable_notify.maintenance_progress (topic) VALUES (_measure_topic.topic) ON CONFLICT DO NOTHING;
    SELECT p.measured_below INTO STRICT from_id FROM durable_notify.maintenance_progress p
     WHERE p.topic = _measure_topic.topic FOR UPDATE;
    DELETE FROM durable_notify.topic_size e
     WHERE e.topic = _measure_topic.topic
       AND e.upto_id < (SELECT o.id FROM durable_notify.outbox o WHERE o.topic = _measure_topic.topic ORDER BY o.id LIMIT 1);
    SELECT pg_catalog.count(*) AS messages, pg_catalog.max(o.id) AS upto_id,
           pg_catalog.sum(200 + pg_catalog.octet_length(o.topic) * 3 + COALESCE(pg_catalog.pg_column_size(o.key), 0)
                          + COALESCE(pg_catalog.pg_column_size(o.payload), 0) + COALESCE(pg_catalog.pg_column_size(o.data), 0)
                          + COALESCE(pg_catalog.pg_column_size(o.headers), 0)) AS bytes
      INTO found
      FROM (SELECT x.* FROM durable_notify.outbox x
             WHERE x.topic = _measure_topic.topic AND x.id >= from_id AND x.id < durable_notify._watermark()
             ORDER BY x.id LIMIT 2000) AS o;
    IF found.messages > 0 THEN
        INSERT INTO durable_notify.topic_size (topic, upto_id, messages, bytes)
        VALUES (_measure_topic.topic, found.upto_id, found.messages, found.bytes);
        UPDATE durable_notify.maintenance_progress p SET measured_below = found.upto_id + 1 WHERE p.topic = _measure_topic.topic;
    END IF;
    RETURN found.messages;
END
$function$;
