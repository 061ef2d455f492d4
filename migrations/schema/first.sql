-- What exists from the beginning: the identity of the cluster, partitions ahead, and the default retention
-- (docs/decisions/retention.md): what every group has settled is removed after 30 days, and records later.
DO $block$ BEGIN PERFORM durable_notify._record_cluster(); END $block$;
DO $block$ BEGIN WHILE durable_notify.create_partitions() > 0 LOOP END LOOP; END $block$;
INSERT INTO durable_notify.topic_retention (pattern, regex, rank, when_settled, min_age)
VALUES ('>', durable_notify._topic_regex('>'), durable_notify._pattern_specificity('>'), true, '30 days');
INSERT INTO durable_notify.record_age (kind, age) VALUES ('inbox', '90 days'), ('audit', '365 days');
