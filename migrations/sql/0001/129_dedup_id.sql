CREATE FUNCTION durable_notify.dedup_id(topic text, dedup_key text, dedup_window interval) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    message_id bigint;
BEGIN
    -- The message published under a dedup key within its window, or NULL: the key is this
    -- transaction's now. Another that publishes under it at the same time is waited for.
    IF dedup_window IS NULL OR dedup_window <= '0' OR pg_catalog.octet_length(dedup_key) NOT BETWEEN 1 AND 1024
       OR durable_notify.has_controls(dedup_key, false) THEN
        RAISE EXCEPTION 'a dedup key has 1 to 1024 bytes of text, no control characters, and a positive window'
            USING ERRCODE = '22023', HINT = 'Nothing was published.';
    END IF;
    -- Trap: to look first and insert then lets two at once publish both.
    INSERT INTO durable_notify.dedup AS d (topic, dedup_key, until)
    VALUES (dedup_id.topic, dedup_id.dedup_key, pg_catalog.clock_timestamp() + dedup_window)
    ON CONFLICT (topic, dedup_key) DO UPDATE SET until = EXCLUDED.until, message_id = NULL
     WHERE d.until <= pg_catalog.clock_timestamp();
    IF NOT FOUND THEN
        SELECT d.message_id INTO STRICT message_id FROM durable_notify.dedup d
         WHERE d.topic = dedup_id.topic AND d.dedup_key = dedup_id.dedup_key;
    END IF;
    RETURN message_id;
END
$function$;
