CREATE FUNCTION durable_notify.refuse_foreign_xid() RETURNS trigger
LANGUAGE plpgsql AS $function$
BEGIN
    -- A row that claims to belong to another transaction could be skipped by every group.
    --
    -- Restores and logical replication, which carry rows over as they are, run with
    -- session_replication_role = replica or before triggers exist, and are not checked.
    RAISE EXCEPTION 'durable_notify.outbox.xid is % but this transaction is %',
        NEW.xid, pg_catalog.pg_current_xact_id()
        USING ERRCODE = '22023',
              HINT = 'Leave xid and id out of the INSERT; their defaults are the only right values.';
END
$function$;

CREATE TRIGGER refuse_foreign_xid AFTER INSERT ON durable_notify.outbox
    FOR EACH ROW WHEN (NEW.xid <> pg_catalog.pg_current_xact_id())
    EXECUTE FUNCTION durable_notify.refuse_foreign_xid();
