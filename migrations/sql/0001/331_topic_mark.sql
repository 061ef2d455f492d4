CREATE FUNCTION durable_notify.topic_mark(topic text) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
    -- A hash of a topic that has nothing to do with the doorbell's, which is hashtext().
    SELECT ('x' || pg_catalog.left(pg_catalog.md5(topic), 8))::bit(32)::integer
$function$;
