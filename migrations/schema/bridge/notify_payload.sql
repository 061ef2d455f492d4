CREATE FUNCTION durable_notify._notify_payload(channel text, message durable_notify.outbox) RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
    -- Send a message's payload to a channel as a publisher with pg_notify() would: a JSON string as its
    -- text, other JSON as JSON, bytes as base64. If it is too long for NOTIFY, send the message's id.
    SELECT pg_catalog.pg_notify(channel, CASE
               WHEN pg_catalog.octet_length(raw.text) < 8000 THEN raw.text ELSE message.id::text END)
      FROM (SELECT COALESCE(message.payload #>> '{}',
                            pg_catalog.translate(pg_catalog.encode(message.data, 'base64'), E'\n', ''),
                            'null') AS text) AS raw
$function$;

CALL durable_notify._grantable('_notify_payload', '{insert}');
