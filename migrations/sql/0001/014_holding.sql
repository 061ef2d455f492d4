-- Never a row: whoever holds a group's lock locks it, which strangers have no right to; see hold_group().
CREATE TABLE durable_notify.holding ();
