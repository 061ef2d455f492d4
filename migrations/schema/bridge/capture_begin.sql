CREATE FUNCTION durable_notify.capture_begin(
    topic text, channel text, writer text, OUT heard_until timestamptz, OUT by_notify boolean
)
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_variable
BEGIN
    -- Begin to capture a channel to a topic, as a writer with a name of its own. Returns until when
    -- other writers have heard the channel (NULL: none has), and whether notify() publishes it to this
    -- topic.
    -- Refuse a topic that is mirrored to the channel: each message would be published again.
    IF NOT durable_notify._is_owner() THEN
        SELECT g.* INTO heard_until, by_notify FROM durable_notify._capture_begin_granted(topic, channel, writer) AS g;
        RETURN;
    END IF;
    IF durable_notify.mirror_of(topic) = channel THEN
        RAISE EXCEPTION 'topic "%" is mirrored to channel "%": capturing it would publish each message again', topic, channel
            USING ERRCODE = '22023', HINT = 'Capture it to another topic, or remove the mirror. Nothing was changed.';
    END IF;
    heard_until := (SELECT pg_catalog.max(c.heard_until) FROM durable_notify.capture c
                     WHERE c.topic = capture_begin.topic AND c.channel = capture_begin.channel
                       AND c.writer <> capture_begin.writer);
    by_notify := durable_notify.topic_of_channel(channel) = topic;
    INSERT INTO durable_notify.capture (topic, channel, writer)
    VALUES (capture_begin.topic, capture_begin.channel, capture_begin.writer)
    ON CONFLICT ON CONSTRAINT capture_pkey DO NOTHING;
    DELETE FROM durable_notify.capture c
     WHERE c.topic = capture_begin.topic AND c.channel = capture_begin.channel AND c.writer <> capture_begin.writer
       AND COALESCE(c.heard_until, c.started_at) < pg_catalog.clock_timestamp() - interval '1 day'
       AND c.heard_until IS DISTINCT FROM capture_begin.heard_until;
END
$function$;

CALL durable_notify._grantable('capture_begin', '{publish}', $$_require('publish', ARRAY[topic])$$);
