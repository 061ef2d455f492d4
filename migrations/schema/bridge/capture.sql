CREATE FUNCTION durable_notify.capture(
    topic text, channel text, writer text, batch bigint, payloads text[], pids integer[], as_json boolean DEFAULT false
) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_variable
BEGIN
    -- Publish notifications that a writer has heard on a channel, in their order, as JSON strings or,
    -- with as_json, as JSON if they are valid JSON. A writer numbers its batches in ascending order: a
    -- batch that was published before is not published again, and this returns false.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._capture_granted(topic, channel, writer, batch, payloads, pids, as_json);
    END IF;
    IF durable_notify.mirror_of(topic) = channel THEN
        RAISE EXCEPTION 'topic "%" is now mirrored to channel "%": capturing it would publish each message again', topic, channel
            USING ERRCODE = '22023', HINT = 'Capture it to another topic, or remove the mirror. Nothing was published.';
    END IF;
    -- An earlier attempt that lost its connection may still be committing: this waits for the row.
    UPDATE durable_notify.capture c SET batch = capture.batch
     WHERE c.topic = capture.topic AND c.channel = capture.channel AND c.writer = capture.writer AND c.batch < capture.batch;
    IF NOT FOUND THEN
        INSERT INTO durable_notify.capture (topic, channel, writer, batch)
        VALUES (capture.topic, capture.channel, capture.writer, capture.batch)
        ON CONFLICT ON CONSTRAINT capture_pkey DO NOTHING;
        IF NOT FOUND THEN
            RETURN false;
        END IF;
    END IF;
    INSERT INTO durable_notify.outbox (topic, payload, headers)
    SELECT capture.topic,
           CASE WHEN as_json THEN durable_notify._to_jsonb(h.payload) ELSE pg_catalog.to_jsonb(h.payload) END,
           pg_catalog.jsonb_build_object('captured', pg_catalog.jsonb_build_object('channel', channel, 'pid', h.pid))
      FROM ROWS FROM (pg_catalog.unnest(payloads), pg_catalog.unnest(pids)) WITH ORDINALITY AS h (payload, pid, ord)
     ORDER BY h.ord;
    RETURN true;
END
$function$;

CREATE FUNCTION durable_notify._to_jsonb(raw text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
BEGIN
    -- Return a text parsed as JSON; if it is not JSON that PostgreSQL can store, return it as a JSON
    -- string.
    RETURN raw::jsonb;
EXCEPTION
    WHEN data_exception OR program_limit_exceeded THEN
        RETURN pg_catalog.to_jsonb(raw);
END
$function$;

CALL durable_notify._grantable('capture', '{publish}', $$_require('publish', ARRAY[topic])$$);
