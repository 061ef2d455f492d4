CREATE FUNCTION durable_notify.read_start(
    topic text, start_at text, since timestamptz DEFAULT NULL, OUT s0 pg_snapshot, OUT h0 bigint
)
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
BEGIN
    -- Where a reader without a group begins: 'beginning', 'now' (what commits from here on) or
    -- 'since' a time. In flight counts as to come, however low its id.
    s0 := CASE start_at WHEN 'beginning' THEN '3:3:' ELSE durable_notify.committed_snapshot() END;
    h0 := CASE start_at
        WHEN 'beginning' THEN 0
        WHEN 'now' THEN durable_notify.last_id(topic)
        ELSE durable_notify.id_before(topic, since)
    END;
END
$function$;
