-- The SQL half of durable_notify, in the order in which it is created: the table of contents.
-- Functions may call each other freely: their bodies are not checked while this runs.
SET LOCAL check_function_bodies = off;

-- How each function's file declares which roles may call it
\ir access/grantable.sql

-- Tables
\ir tables/names.sql
\ir tables/outbox.sql
\ir tables/groups.sql
\ir tables/subscriptions.sql
\ir tables/leases.sql
\ir tables/dead_letters.sql
\ir tables/replay_jobs.sql
\ir tables/deduplication.sql
\ir tables/inbox.sql
\ir tables/audit.sql
\ir tables/wakeups.sql
\ir tables/locks.sql
\ir tables/bridge.sql
\ir tables/retention.sql
\ir tables/cluster.sql
\ir tables/access.sql
\ir tables/operator_events.sql
\ir tables/webhooks.sql
\ir tables/schedules.sql

-- Functions whose bodies hold settings: created once, and rewritten by the functions that set them
\ir inlined/notify_policy.sql
\ir inlined/mirror_of.sql
\ir inlined/key_required.sql
\ir inlined/closed_below.sql

-- The calling role, and what it was granted
\ir access/caller.sql
\ir access/require.sql
\ir access/grant_access.sql
\ir access/revoke_access.sql
\ir access/roles.sql
\ir access/lock_functions.sql
\ir access/rewrite_inlined.sql

-- The outbox: ids, snapshots, windows, and what has been read
\ir log/last_id.sql
\ir log/id_before.sql
\ir log/committed_snapshot.sql
\ir log/message.sql
\ir log/read_window.sql
\ir log/stragglers.sql
\ir log/publishers.sql
\ir log/watermark.sql
\ir log/unread.sql
\ir log/topics.sql
\ir log/log_id.sql
\ir log/messages_between.sql
\ir log/never_published.sql

-- Publishing: one insert, and a trigger that notifies consumers that wait
\ir publish/publish.sql
\ir publish/publish_many.sql
\ir publish/delivery_times.sql
\ir publish/outbox_insert.sql
\ir publish/prune_dedup.sql

-- Wake-ups: channels, doorbells, and which are armed
\ir wakeups/channel.sql
\ir wakeups/waiters.sql
\ir wakeups/ring.sql
\ir wakeups/arm.sql
\ir wakeups/disarm.sql
\ir wakeups/armed.sql
\ir wakeups/unnotified_transactions.sql
\ir wakeups/still_running.sql
\ir wakeups/set_notify_policy.sql

-- Groups: subscriptions, options, and the lock of a group
\ir groups/subscribe.sql
\ir groups/subscribe_topics.sql
\ir groups/discover.sql
\ir groups/pattern.sql
\ir groups/pause.sql
\ir groups/resume.sql
\ir groups/configure.sql
\ir groups/rename_group.sql
\ir groups/delete_group.sql
\ir groups/unsubscribe.sql
\ir groups/unclaimed_topics.sql
\ir groups/groups.sql
\ir groups/lock.sql
\ir groups/ordering.sql

-- Claiming: a group's next batch, under a lease
\ir claim/claim.sql
\ir claim/topics_to_claim.sql
\ir claim/claim_in_full.sql
\ir claim/next_batch.sql
\ir claim/take_deferred.sql
\ir claim/parked.sql
\ir claim/triage.sql
\ir claim/save_position.sql
\ir claim/quotas.sql
\ir claim/active_consumer.sql
\ir claim/renew_active.sql
\ir claim/resign_active.sql
\ir claim/reclaim.sql
\ir claim/next_due.sql
\ir claim/blocking_publishers.sql

-- Settling: ack, retry or reject the messages of a lease
\ir settle/settle.sql
\ir settle/retry.sql
\ir settle/defer.sql
\ir settle/dead_letter.sql
\ir settle/lease.sql
\ir settle/extend.sql
\ir settle/release.sql
\ir settle/unacknowledged.sql
\ir settle/once.sql
\ir settle/prune_inbox.sql

-- Dead letters
\ir dead_letters/dead_letters.sql
\ir dead_letters/filter.sql
\ir dead_letters/redrive.sql
\ir dead_letters/discard.sql

-- Retries: messages that failed, and wait for their next attempt
\ir retries/retries.sql
\ir retries/retry_counts.sql
\ir retries/filter.sql
\ir retries/retry_now.sql
\ir retries/drop_retries.sql

-- Replay: move a group's position, or deliver some of the past again
\ir replay/seek.sql
\ir replay/start_replay.sql
\ir replay/locked_position.sql
\ir replay/matches.sql
\ir replay/advance_replays.sql
\ir replay/cancel_replay.sql
\ir replay/replay_jobs.sql

-- Reading without a group
\ir reading/read_from.sql
\ir reading/read.sql
\ir reading/latest.sql
\ir reading/browse.sql
\ir reading/message_states.sql

-- Status
\ir status/status.sql
\ir status/places.sql
\ir status/apart.sql
\ir status/leases.sql
\ir status/blocked_keys.sql
\ir status/audit_entries.sql
\ir status/prune_audit.sql

-- Retention: what is removed, and when
\ir retention/set_retention.sql
\ir retention/delete_retention.sql
\ir retention/key_required.sql
\ir retention/retention.sql
\ir retention/policy.sql
\ir retention/settled.sql
\ir retention/retention_watermark.sql
\ir retention/retention_blockers.sql
\ir retention/lost_messages.sql
\ir retention/record_losses.sql
\ir retention/measure.sql
\ir retention/compact.sql
\ir retention/plan_archive.sql
\ir retention/still_archiving.sql
\ir retention/advance_archive.sql
\ir retention/delete_expired.sql
\ir retention/last_removed.sql
\ir retention/set_record_age.sql
\ir retention/record_ages.sql
\ir retention/topic_storage.sql
\ir retention/lock.sql

-- Schedules: messages that are published again and again
\ir schedules/set_schedule.sql
\ir schedules/publish_ticks.sql
\ir schedules/run_schedule.sql
\ir schedules/pause_schedule.sql
\ir schedules/resume_schedule.sql
\ir schedules/delete_schedule.sql
\ir schedules/schedules.sql

-- Operator events: what happens to groups, as messages
\ir operator_events/set_operator_events.sql
\ir operator_events/operator_events.sql
\ir operator_events/publish_event.sql
\ir operator_events/publish_alarms.sql

-- Erasure: what is kept of a key
\ir erasure/erase.sql
\ir erasure/erase_batch.sql
\ir erasure/counts.sql
\ir erasure/erase_messages.sql

-- Partitions of the outbox
\ir partitions/partitions.sql
\ir partitions/create_partitions.sql
\ir partitions/maintain_partitions.sql
\ir partitions/record_times.sql
\ir partitions/close.sql
\ir partitions/unwanted.sql
\ir partitions/truncate.sql
\ir partitions/drop.sql
\ir partitions/rewrite.sql
\ir partitions/swap.sql
\ir partitions/references.sql

-- Maintenance: rounds of bounded steps
\ir maintenance/maintain.sql
\ir maintenance/maintain_due.sql
\ir maintenance/maintain_begin.sql
\ir maintenance/maintain_steps.sql
\ir maintenance/maintain_step.sql
\ir maintenance/maintain_alarms.sql
\ir maintenance/maintain_end.sql
\ir maintenance/maintenance_status.sql
\ir maintenance/expire_leases.sql
\ir maintenance/orphans.sql
\ir maintenance/analyze.sql
\ir maintenance/discover_next.sql

-- Webhooks: endpoints, each with a group of its own
\ir webhooks/create_webhook.sql
\ir webhooks/change_webhook.sql
\ir webhooks/rotate_webhook_secret.sql
\ir webhooks/delete_webhook.sql
\ir webhooks/note_webhook.sql
\ir webhooks/webhooks.sql

-- The cluster in which the outbox was written, and moving to another one
\ir cluster/identity.sql
\ir cluster/reanchor.sql
\ir cluster/reset.sql
\ir cluster/empty_all.sql
\ir cluster/truncated.sql
\ir cluster/min_client_version.sql

-- LISTEN/NOTIFY adopted: mirrors, capture, and a NOTIFY that is durable
\ir bridge/notify.sql
\ir bridge/topic_of_channel.sql
\ir bridge/percent_encode.sql
\ir bridge/set_mirror.sql
\ir bridge/notify_payload.sql
\ir bridge/create_compat.sql
\ir bridge/drop_compat.sql
\ir bridge/capture.sql
\ir bridge/capture_begin.sql
\ir bridge/capture_progress.sql
\ir bridge/already_published.sql
\ir bridge/bridges.sql

-- Watched tables
\ir watch/watch.sql
\ir watch/unwatch.sql
\ir watch/trigger.sql
\ir watch/name.sql

\ir triggers.sql

-- Rights, and the first rows and partitions
\ir grants.sql
\ir first.sql

RESET check_function_bodies;
