CREATE FUNCTION durable_notify._key_required(topic text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $function$
    -- Whether a topic is compacted, so that each of its messages must have a key.
    --
    -- Rewritten by set_retention(), so that it costs a publisher nothing; see notify_policy().
    SELECT false
$function$;
