CREATE FUNCTION durable_notify.sealed_below() RETURNS bigint
LANGUAGE sql STABLE AS $function$
    -- Below which id nothing can appear any more, as far as seal_log() has noted.
    SELECT COALESCE((SELECT s.last_id + 1 FROM durable_notify.seal s), 1)
$function$;
