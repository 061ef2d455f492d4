CREATE FUNCTION durable_notify.messages_between(
    topic text, after_id bigint, upto_id bigint, max_count integer DEFAULT 100000
) RETURNS bigint
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET plan_cache_mode = force_generic_plan
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- How many messages a topic has with ids above after_id and up to upto_id; counted up to max_count.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._messages_between_granted(topic, after_id, upto_id, max_count);
    END IF;
    IF max_count IS NULL OR max_count NOT BETWEEN 1 AND 1000000 THEN
        RAISE EXCEPTION 'max_count is 1 to 1000000, not %', max_count USING ERRCODE = '22023';
    END IF;
    RETURN (SELECT pg_catalog.count(*) FROM (
        SELECT FROM durable_notify.outbox o
         WHERE o.topic = messages_between.topic AND o.id > messages_between.after_id AND o.id <= messages_between.upto_id
         ORDER BY o.id LIMIT messages_between.max_count) AS few);
END
$function$;

CALL durable_notify._grantable('messages_between', '{observe,consume}', $$_require_observe()$$);
