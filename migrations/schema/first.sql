-- What exists from the beginning: the identity of the cluster, and partitions ahead.
DO $block$ BEGIN PERFORM durable_notify._record_cluster(); END $block$;
DO $block$ BEGIN WHILE durable_notify.create_partitions() > 0 LOOP END LOOP; END $block$;
