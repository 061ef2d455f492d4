CREATE FUNCTION durable_notify.maintain_alarms() RETURNS TABLE (group_name text, topic text, bytes bigint)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- What retention_blockers() has beyond its alarm, for the report of a round.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._maintain_alarms_granted();
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM durable_notify.topic_retention r WHERE r.alarm_bytes IS NOT NULL) THEN
        RETURN QUERY SELECT b.group_name, b.topic, b.bytes FROM durable_notify.retention_blockers() AS b WHERE b.alarm;
    END IF;
END
$function$;

CALL durable_notify._grantable('maintain_alarms', '{maintain}', $$_require('maintain')$$);
