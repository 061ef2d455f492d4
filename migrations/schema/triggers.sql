CREATE TRIGGER outbox_after_insert AFTER INSERT ON durable_notify.outbox
    FOR EACH ROW EXECUTE FUNCTION durable_notify._outbox_after_insert();
-- Each partition has a copy of it, which is as the outbox's was when the partition was made.
-- Trap: session_replication_role = replica silences a trigger that is not ENABLE ALWAYS.
ALTER TABLE durable_notify.outbox ENABLE ALWAYS TRIGGER outbox_after_insert;

CREATE TRIGGER outbox_after_truncate AFTER TRUNCATE ON durable_notify.outbox
    FOR EACH STATEMENT EXECUTE FUNCTION durable_notify._outbox_after_truncate();
