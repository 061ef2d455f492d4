CREATE FUNCTION durable_notify.retention() RETURNS TABLE (
    pattern text, max_age interval, max_bytes bigint, when_settled boolean, on_lag text, alarm_bytes bigint,
    compact boolean, archive boolean, set_at timestamptz, set_by text, min_age interval
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- What is removed from which topics, as set by set_retention(), in the order in which they are
    -- matched. Topics that none of them matches are kept for ever.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._retention_granted();
        RETURN;
    END IF;
    RETURN QUERY
    SELECT r.pattern, r.max_age, r.max_bytes, r.when_settled, r.on_lag, r.alarm_bytes, r.compact, r.archive, r.set_at, r.set_by,
           r.min_age
      FROM durable_notify.topic_retention r ORDER BY r.rank;
END
$function$;

CALL durable_notify._grantable('retention', '{observe,consume}', $$_require_observe()$$);
