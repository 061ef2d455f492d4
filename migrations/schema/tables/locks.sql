-- Never has a row: a session that holds a group's lock locks it, which strangers have no right to; see
-- _acquire_group_lock().
CREATE TABLE durable_notify.lock_groups ();

-- A session that removes messages locks it, and one that redelivers messages adds a row; see
-- _lock_removal() and _block_removal().
CREATE TABLE durable_notify.lock_removals (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
