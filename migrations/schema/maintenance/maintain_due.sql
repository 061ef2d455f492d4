CREATE FUNCTION durable_notify.maintain_due(every interval) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- Return whether no round of maintenance has ended for so long. Consumers ask this first: unlike
    -- maintain_begin() it writes nothing.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._maintain_due_granted(every);
    END IF;
    RETURN NOT EXISTS (SELECT FROM durable_notify.maintenance m WHERE m.done_at > pg_catalog.clock_timestamp() - every);
END
$function$;

CALL durable_notify._grantable('maintain_due', '{maintain}', $$_require('maintain')$$);
