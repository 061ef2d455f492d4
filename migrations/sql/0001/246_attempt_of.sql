CREATE FUNCTION durable_notify.attempt_of(held durable_notify.lease, message_id bigint) RETURNS integer
LANGUAGE sql IMMUTABLE AS $function$
    -- Which attempt of a message a lease is.
    SELECT held.attempts[pg_catalog.array_position(held.ids, message_id)]
$function$;
