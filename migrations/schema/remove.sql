DROP SCHEMA IF EXISTS durable_notify_compat CASCADE;
DROP TABLE durable_notify.topic_retention, durable_notify.maintenance_progress, durable_notify.topic_size, durable_notify.compacted_key,
    durable_notify.lost_message, durable_notify.watermark, durable_notify.maintenance, durable_notify.lock_removals, durable_notify.unwanted_partition, durable_notify.stretch_time, durable_notify.record_age,
    durable_notify.operator_event, durable_notify.operator_alarm, durable_notify.schedule CASCADE;
DROP TABLE durable_notify.capture, durable_notify.topic_mirror, durable_notify.access, durable_notify.lock_groups, durable_notify.dead_letter, durable_notify.deferred, durable_notify.ordering, durable_notify.settlement,
    durable_notify.lease_deadline, durable_notify.dedup, durable_notify.audit, durable_notify.processed_message, durable_notify.replay_job, durable_notify.topic_notify_policy, durable_notify.lock_rings, durable_notify.cluster_identity, durable_notify.partition_settings,
    durable_notify.outbox CASCADE;
DO $block$
DECLARE
    dropped regprocedure;
    copied text;
BEGIN
    FOR copied IN SELECT c.relname FROM pg_catalog.pg_class c
                   WHERE c.relnamespace = 'durable_notify'::regnamespace AND c.relname ~ '^outbox_[0-9]+_copy$' AND c.relkind = 'r'
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
DROP TABLE durable_notify.webhook, durable_notify.position, durable_notify.lease, durable_notify.subscription, durable_notify.group_pattern,
    durable_notify.active_consumer, durable_notify.rate_bucket, durable_notify.consumer_group;
