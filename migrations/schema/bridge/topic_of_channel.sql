CREATE FUNCTION durable_notify.topic_of_channel(channel text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
    -- Return the topic to which notify() publishes what is sent to a channel: the channel's name, with
    -- % and all that a topic cannot contain (white space, control characters, *, >) as %XX.
    SELECT durable_notify._percent_encode(channel, E'[\\u0001-\\u0020\\u007f-\\u00a0*>%]')
$function$;

CALL durable_notify._grantable('topic_of_channel', '{publish}');
