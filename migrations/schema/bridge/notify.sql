CREATE FUNCTION durable_notify.notify(channel text, payload text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_variable
DECLARE
    raw text := COALESCE(payload, '');
    new_id bigint;
BEGIN
    -- A durable pg_notify(): publishes the payload, as a JSON string, to the topic with the channel's
    -- name, and notifies the channel as pg_notify() does. If the payload is too long for NOTIFY, it
    -- publishes it and notifies the message's id.
    --
    -- It refuses the channels that pg_notify() refuses. The caller needs the right to publish to
    -- topic_of_channel(channel). The header tells capture() that this is published already.
    IF COALESCE(channel, '') = '' OR pg_catalog.octet_length(channel) > 63 THEN
        RAISE EXCEPTION 'a channel''s name must have 1 to 63 bytes, not %', COALESCE(pg_catalog.octet_length(channel), 0)
            USING ERRCODE = '22023', HINT = 'Nothing was published or notified.';
    END IF;
    new_id := durable_notify.publish(
        durable_notify.topic_of_channel(channel), pg_catalog.to_jsonb(raw),
        headers => pg_catalog.jsonb_build_object(
            'notified', pg_catalog.jsonb_build_object('channel', channel, 'pid', pg_catalog.pg_backend_pid())));
    -- If the topic is mirrored to this channel, the mirror has notified it. PostgreSQL delivers two
    -- equal notifications of a transaction once.
    PERFORM pg_catalog.pg_notify(
        channel, CASE WHEN pg_catalog.octet_length(raw) < 8000 THEN raw ELSE new_id::text END);
END
$function$;

CALL durable_notify._grantable('notify', '{publish}');
