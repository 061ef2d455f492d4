-- Never a row: whoever holds a group's lock locks it, which strangers have no right to; see hold_group().
CREATE TABLE durable_notify.holding ();

-- Who removes messages locks it, and who redelivers messages adds a row; see hold_removing() and keep_all().
CREATE TABLE durable_notify.removing (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
