CREATE FUNCTION durable_notify.replay(
    group_name text, topic text, after_id bigint DEFAULT NULL, since timestamptz DEFAULT NULL,
    dry_run boolean DEFAULT false
) RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off SET jit = off SET lock_timeout = '5s'
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    pos durable_notify.position;
    back_to durable_notify.position;
    target bigint;
    again bigint;
    going_back integer;
BEGIN
    -- Take a group back in a topic: every message after an id (0: from the beginning), or
    -- published at or after a time, comes again. Returns how many committed messages that is, and
    -- with dry_run no more than that.
    --
    -- What the group has not been handed yet still comes, once. Never moves a group forward.
    -- Retries that wait, and are among the messages that come again, wait no longer.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._replay_granted(group_name, topic, after_id, since, dry_run);
    END IF;
    IF (after_id IS NULL) = (since IS NULL) OR after_id < 0 THEN
        RAISE EXCEPTION 'replay after an id of 0 or more, or since a time' USING ERRCODE = '22023';
    END IF;
    IF NOT dry_run THEN
        PERFORM durable_notify._block_removal();  -- what is redelivered is not removed meanwhile
    END IF;
    going_back := durable_notify._lock_group(group_name);
    SELECT p.* INTO pos FROM durable_notify.subscription s
      JOIN durable_notify.position p ON p.subscription_id = s.id
     WHERE s.group_id = going_back AND s.topic = replay.topic
     ORDER BY p.seq DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'group "%" is not subscribed to topic "%"', group_name, topic USING ERRCODE = 'DN006',
              HINT = 'durable_notify.status() lists what each group consumes.';
    END IF;
    target := COALESCE(after_id, durable_notify._id_before(topic, since));
    again := (SELECT pg_catalog.count(*) FROM durable_notify.outbox o WHERE o.topic = replay.topic AND o.id > target)
           - (SELECT pg_catalog.count(*) FROM durable_notify._unread(pos.subscription_id) u WHERE u.id > target);
    IF NOT dry_run THEN
        -- Exact with the snapshots as they are: handed over is what is visible in s0 up to h0, or
        -- in s1 up to p, and both bounds come down.
        back_to := pos;
        back_to.h0 := LEAST(pos.h0, target);
        back_to.p := LEAST(pos.p, target);
        PERFORM durable_notify._save_position(pos, back_to, pos.lease_tokens);
        DELETE FROM durable_notify.deferred d
         WHERE d.subscription_id = pos.subscription_id AND d.message_id > target;
        PERFORM durable_notify._ring(topic, target::text);
    END IF;
    RETURN again;
END
$function$;
