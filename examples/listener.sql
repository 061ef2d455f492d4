-- A listener in plain SQL, for psql. It creates its group when it first runs, handles one batch
-- of messages, and ends:
--
--     psql -X -v topic=orders -v group=audit -f examples/listener.sql "$DURABLE_NOTIFY_DSN"
--
-- psql cannot wait for a notification. A program that can continues from here: it sleeps until one
-- arrives, or until next_due(), and claims again. node/listener.mjs does that.

\set QUIET on
\set ON_ERROR_STOP on
\pset tuples_only on
\if :{?topic} \else \set topic orders \endif
\if :{?group} \else \set group audit \endif

SET client_min_messages = warning;
CREATE TABLE IF NOT EXISTS audit (message_id bigint PRIMARY KEY, said jsonb);

-- LISTEN, commit, arm the topic's doorbell, then read. The claim finds what was committed before
-- that, and what is published after it rings. A channel is an identifier, so format() builds the
-- statement, and \gexec runs it.
SELECT format('LISTEN %I', durable_notify.channel(:'topic')) \gexec
SELECT durable_notify.arm(:'topic') \g /dev/null

SELECT durable_notify.subscribe(:'group', ARRAY[:'topic']) \g /dev/null

-- A claim must be alone in its transaction. Its batch is in a lease, with a token.
SELECT count(*) AS claimed, count(*) > 0 AS found, max(token) AS token
  FROM durable_notify.claim(:'group', ARRAY[:'topic'], max_messages => 100, owner => 'psql') \gset

\if :found
    -- The work on the messages and their acknowledgement commit together. If this fails, they
    -- are redelivered when their lease expires.
    BEGIN;
    INSERT INTO audit
    SELECT o.id, o.payload
      FROM durable_notify.lease l
      JOIN durable_notify.outbox o ON o.topic = :'topic' AND o.id = ANY (l.ids)
     WHERE l.token = :token
        ON CONFLICT DO NOTHING;  -- after a replay
    SELECT durable_notify.settle(l.token, acked => l.ids)
      FROM durable_notify.lease l WHERE l.token = :token \g /dev/null
    COMMIT;
\endif
\echo :claimed messages handled

-- How long until something comes back by the clock, in seconds; empty: nothing will.
SELECT durable_notify.next_due(:'group', ARRAY[:'topic']);
