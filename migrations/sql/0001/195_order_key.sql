CREATE FUNCTION durable_notify.order_key(order_by text, key text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $function$
    -- What a group keeps in order by: nothing (NULL), a message's key, or in a strict group one
    -- key for all, which no message can have.
    SELECT CASE order_by WHEN 'key' THEN key WHEN 'strict' THEN '' END
$function$;
