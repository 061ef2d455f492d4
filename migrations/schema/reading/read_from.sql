CREATE FUNCTION durable_notify.read_from(
    topic text, start_at text, since timestamptz DEFAULT NULL, OUT s0 pg_snapshot, OUT h0 bigint
)
LANGUAGE plpgsql
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- Where a reader without a group begins: 'beginning', 'now' (what commits from here on) or 'since'
    -- a time. Messages in flight are still to come, however low their ids.
    IF NOT durable_notify._is_owner() THEN
        SELECT g.s0, g.h0 INTO s0, h0 FROM durable_notify._read_from_granted(topic, start_at, since) AS g;
        RETURN;
    END IF;
    s0 := CASE start_at WHEN 'beginning' THEN '3:3:' ELSE durable_notify._durable_snapshot(topic) END;
    h0 := CASE start_at
        WHEN 'beginning' THEN 0
        WHEN 'now' THEN durable_notify.last_id(topic)
        ELSE durable_notify._id_before(topic, since)
    END;
END
$function$;

CALL durable_notify._grantable('read_from', '{read}', $$_require('read', ARRAY[topic])$$);
