CREATE FUNCTION durable_notify.log_id() RETURNS uuid
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
BEGIN
    -- What tells this outbox from a copy of it in another cluster: a position is valid in one outbox
    -- only.
    --
    -- SQLSTATE DN010: it came from another cluster, and reanchor() has not been run.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._log_id_granted();
    END IF;
    IF (SELECT pg_catalog.count(*) = 2 AND pg_catalog.bool_and(a.xmin = a.xid) FROM durable_notify.cluster_identity a) IS NOT TRUE THEN
        PERFORM durable_notify._raise_foreign_cluster();
    END IF;
    RETURN (SELECT a.log_id FROM durable_notify.cluster_identity a WHERE a.slot = 1);
END
$function$;

CALL durable_notify._grantable('log_id', '{read}', $$_require('read')$$);
