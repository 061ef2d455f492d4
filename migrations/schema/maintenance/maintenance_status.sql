CREATE FUNCTION durable_notify.maintenance_status() RETURNS TABLE (
    seconds double precision, failed bigint, report jsonb
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- One row: how long ago a round of maintenance ended (if none has: how long ago the schema was made),
    -- how many of its steps failed, and its report.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._maintenance_status_granted();
        RETURN;
    END IF;
    RETURN QUERY
    SELECT EXTRACT(epoch FROM pg_catalog.clock_timestamp() - COALESCE(
               m.done_at, (SELECT pg_catalog.min(r.set_at) FROM durable_notify.record_age r)))::double precision,
           (SELECT pg_catalog.count(*) FROM pg_catalog.jsonb_object_keys(m.report) AS k (name) WHERE k.name ~ ' failed$'),
           m.report
      FROM (SELECT) AS one LEFT JOIN durable_notify.maintenance m ON true;
END
$function$;

CALL durable_notify._grantable('maintenance_status', '{observe,consume}', $$_require_observe()$$);
