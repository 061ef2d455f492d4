CREATE FUNCTION durable_notify.publish(
    topic text, payload jsonb, key text DEFAULT NULL, headers jsonb DEFAULT NULL,
    data bytea DEFAULT NULL, deliver_at timestamptz DEFAULT NULL, delay interval DEFAULT NULL,
    expires_at timestamptz DEFAULT NULL, ttl interval DEFAULT NULL,
    dedup_key text DEFAULT NULL, dedup_window interval DEFAULT '1 hour'
) RETURNS bigint
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    new_id bigint;
BEGIN
    -- Publish one message inside the caller's transaction; returns its id.
    --
    -- Every group gets it when, and only when, that transaction commits. A message has either a JSON
    -- payload or bytes (data, with payload NULL). Take your own locks first, then publish: the order of
    -- a key is the order in which ids are drawn.
    -- Groups get it from deliver_at on, or after delay. They do not get it from expires_at on, or from
    -- ttl after its delivery on. If it is published again with the same dedup_key within dedup_window,
    -- it is not published: the id of the first is returned.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._publish_granted(
            topic, payload, key, headers, data, deliver_at, delay, expires_at, ttl, dedup_key, dedup_window);
    END IF;
    IF deliver_at IS NULL AND delay IS NULL AND expires_at IS NULL AND ttl IS NULL AND dedup_key IS NULL THEN
        INSERT INTO durable_notify.outbox (topic, key, payload, data, headers)
        VALUES (publish.topic, publish.key, publish.payload, publish.data, publish.headers)
        RETURNING id INTO new_id;
        RETURN new_id;
    END IF;
    RETURN durable_notify._publish_with_options(
        topic, payload, key, headers, data, deliver_at, delay, expires_at, ttl, dedup_key, dedup_window);
END
$function$;

CREATE FUNCTION durable_notify._publish_granted(
    topic text, payload jsonb, key text, headers jsonb, data bytea, deliver_at timestamptz, delay interval,
    expires_at timestamptz, ttl interval, dedup_key text, dedup_window interval
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, durable_notify, pg_temp SET standard_conforming_strings = on AS $function$
#variable_conflict use_column
DECLARE
    new_id bigint;
BEGIN
    -- publish() for roles that the table access allows it; publish() calls this by itself. Unlike the
    -- other twins, this does not call publish(): that would be planned again each time, for another
    -- search_path.
    PERFORM durable_notify._require('publish', ARRAY[topic]);
    IF deliver_at IS NULL AND delay IS NULL AND expires_at IS NULL AND ttl IS NULL AND dedup_key IS NULL THEN
        INSERT INTO durable_notify.outbox (topic, key, payload, data, headers)
        VALUES (_publish_granted.topic, _publish_granted.key, _publish_granted.payload, _publish_granted.data,
                _publish_granted.headers)
        RETURNING id INTO new_id;
        RETURN new_id;
    END IF;
    RETURN durable_notify._publish_with_options(
        topic, payload, key, headers, data, deliver_at, delay, expires_at, ttl, dedup_key, dedup_window);
END
$function$;

CREATE FUNCTION durable_notify._publish_with_options(
    topic text, payload jsonb, key text, headers jsonb, data bytea, deliver_at timestamptz, delay interval,
    expires_at timestamptz, ttl interval, dedup_key text, dedup_window interval
) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    new_id bigint;
    times record;
BEGIN
    -- Publish a message with times or a dedup key: what publish() rarely does.
    SELECT * INTO STRICT times FROM durable_notify._delivery_times(
        _publish_with_options.deliver_at, _publish_with_options.delay, _publish_with_options.expires_at, _publish_with_options.ttl);
    IF dedup_key IS NOT NULL THEN
        new_id := durable_notify._claim_dedup_key(topic, dedup_key, dedup_window);
        IF new_id IS NOT NULL THEN
            RETURN new_id;
        END IF;
    END IF;
    INSERT INTO durable_notify.outbox (topic, key, payload, data, headers, deliver_at, expires_at)
    VALUES (_publish_with_options.topic, _publish_with_options.key, _publish_with_options.payload, _publish_with_options.data, _publish_with_options.headers,
            times.deliver_at, times.expires_at)
    RETURNING id INTO new_id;
    IF dedup_key IS NOT NULL THEN
        UPDATE durable_notify.dedup d SET message_id = new_id
         WHERE d.topic = _publish_with_options.topic AND d.dedup_key = _publish_with_options.dedup_key;
    END IF;
    RETURN new_id;
END
$function$;

CREATE FUNCTION durable_notify._claim_dedup_key(topic text, dedup_key text, dedup_window interval) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    message_id bigint;
BEGIN
    -- The message published under a dedup key within its window, or NULL: the key is now this
    -- transaction's. If another transaction publishes under it at the same time, this waits for it.
    IF dedup_window IS NULL OR dedup_window <= '0' OR pg_catalog.octet_length(dedup_key) NOT BETWEEN 1 AND 1024
       OR durable_notify._has_controls(dedup_key, false) THEN
        RAISE EXCEPTION 'a dedup key must have 1 to 1024 bytes of text, no control characters, and a positive window'
            USING ERRCODE = '22023', HINT = 'Nothing was published.';
    END IF;
    -- Trap: to look first and insert then lets two at once publish both.
    INSERT INTO durable_notify.dedup AS d (topic, dedup_key, until)
    VALUES (_claim_dedup_key.topic, _claim_dedup_key.dedup_key, pg_catalog.clock_timestamp() + dedup_window)
    ON CONFLICT (topic, dedup_key) DO UPDATE SET until = EXCLUDED.until, message_id = NULL
     WHERE d.until <= pg_catalog.clock_timestamp();
    IF NOT FOUND THEN
        SELECT d.message_id INTO STRICT message_id FROM durable_notify.dedup d
         WHERE d.topic = _claim_dedup_key.topic AND d.dedup_key = _claim_dedup_key.dedup_key;
    END IF;
    RETURN message_id;
END
$function$;

CALL durable_notify._grantable('publish', '{publish}');
