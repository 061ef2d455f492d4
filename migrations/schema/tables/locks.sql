-- Never a row: whoever holds a group's lock locks it, which strangers have no right to; see _acquire_group_lock().
CREATE TABLE durable_notify.lock_groups ();

-- Who removes messages locks it, and who redelivers messages adds a row; see _lock_removal() and _block_removal().
CREATE TABLE durable_notify.lock_removals (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
