DROP SCHEMA IF EXISTS durable_notify_compat CASCADE;
DROP TABLE durable_notify.topic_retention, durable_notify.topic_progress, durable_notify.topic_extent, durable_notify.compacted_key,
    durable_notify.loss, durable_notify.seal, durable_notify.maintenance, durable_notify.removing, durable_notify.unwanted_leaf CASCADE;
DROP TABLE durable_notify.capture, durable_notify.topic_mirror, durable_notify.access, durable_notify.holding, durable_notify.dead_letter, durable_notify.deferred, durable_notify.ordering, durable_notify.settlement,
    durable_notify.heartbeat, durable_notify.dedup, durable_notify.audit, durable_notify.inbox, durable_notify.replay_job, durable_notify.topic_wakeups, durable_notify.ringing, durable_notify.anchor, durable_notify.log_layout,
    durable_notify.outbox CASCADE;
DO $block$
DECLARE
    dropped regprocedure;
    copied text;
BEGIN
    FOR copied IN SELECT c.relname FROM pg_catalog.pg_class c
                   WHERE c.relnamespace = 'durable_notify'::regnamespace AND c.relname ~ '^outbox_[0-9]+_anew$' AND c.relkind = 'r'
    LOOP
        EXECUTE pg_catalog.format('DROP TABLE durable_notify.%I', copied);
    END LOOP;
    FOR dropped IN
        SELECT p.oid::regprocedure FROM pg_catalog.pg_proc p
         WHERE p.pronamespace = 'durable_notify'::regnamespace
    LOOP
        EXECUTE pg_catalog.format('DROP ROUTINE %s CASCADE', dropped);
    END LOOP;
END
$block$;
DROP TABLE durable_notify.position, durable_notify.lease, durable_notify.subscription, durable_notify.pattern,
    durable_notify.active, durable_notify.allowance, durable_notify.horizon, durable_notify.consumer_group;
