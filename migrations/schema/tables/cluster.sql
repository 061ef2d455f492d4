-- Proves that the transaction ids in these tables are this cluster's: two rows that _record_cluster()
-- writes, each with its own xmin, the second with the lower one. Crash, promotion, point-in-time
-- recovery, pg_upgrade and CREATE DATABASE ... TEMPLATE carry rows over as they are. A restored dump or
-- logical replication writes them again, and cannot give both the xmin they were given: in one
-- transaction both get the same, in two the second gets the higher one.
-- Trap: the cluster's system identifier says less: pg_upgrade changes it and keeps the transaction ids,
-- and one row could be given its old xmin again by chance, in clusters that are both new.
-- No key: logical replication must be able to add the other cluster's rows, which is then seen.
CREATE TABLE durable_notify.cluster_identity (
    slot       smallint    NOT NULL,
    xid         xid         NOT NULL,
    log_id      uuid        NOT NULL,  -- of this outbox, here: what readers keep is valid in one outbox only
    anchored_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
ALTER TABLE durable_notify.cluster_identity REPLICA IDENTITY FULL;
