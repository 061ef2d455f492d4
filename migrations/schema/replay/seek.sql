CREATE FUNCTION durable_notify.seek(
    group_name text, topic text, after_id bigint DEFAULT NULL, since timestamptz DEFAULT NULL,
    to_now boolean DEFAULT false, why text DEFAULT NULL, dry_run boolean DEFAULT false,
    OUT redelivered bigint, OUT skipped bigint
)
LANGUAGE plpgsql
SET enable_seqscan = off SET jit = off SET lock_timeout = '5s'
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    pos durable_notify.position;
    target durable_notify.position;
    seeking integer;
BEGIN
    -- Move a group in a topic, back or forward: to after an id, to a time, or to now. Returns how
    -- many committed messages come again, and how many that it had not got are skipped.
    --
    -- No straggler is lost: what is in flight comes when it commits, however low its id; going back,
    -- what was committed and not handed over yet still comes, too. Retries that wait
    -- go on waiting, but those among what comes again.
    IF NOT durable_notify._is_owner() THEN
        SELECT g.redelivered, g.skipped INTO redelivered, skipped FROM durable_notify._seek_granted(group_name, topic, after_id, since, to_now, why, dry_run) AS g;
        RETURN;
    END IF;
    IF (after_id IS NOT NULL)::integer + (since IS NOT NULL)::integer + to_now::integer <> 1 OR after_id < 0 THEN
        RAISE EXCEPTION 'seek to after an id of 0 or more, since a time, or to now' USING ERRCODE = '22023';
    END IF;
    IF NOT dry_run THEN
        PERFORM durable_notify._block_removal();  -- what is redelivered is not removed meanwhile
    END IF;
    seeking := durable_notify._lock_group(group_name);
    SELECT p.* INTO pos FROM durable_notify.subscription s
      JOIN durable_notify.position p ON p.subscription_id = s.id
     WHERE s.group_id = seeking AND s.topic = seek.topic ORDER BY p.seq DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'group "%" is not subscribed to topic "%"', group_name, topic USING ERRCODE = 'DN006',
              HINT = 'durable_notify.status() lists what each group consumes.';
    END IF;
    target := pos;
    -- Before the id is read: what commits in between is then late, and looked for; not skipped.
    target.s0 := durable_notify._committed_snapshot();
    target.s1 := NULL;
    target.h1 := NULL;
    target.p := 0;
    target.h0 := CASE WHEN to_now THEN durable_notify.last_id(topic)
                      ELSE COALESCE(after_id, durable_notify._id_before(topic, since)) END;
    IF target.h0 < GREATEST(pos.h0, pos.p) THEN
        skipped := 0;
        redelivered := durable_notify.replay(group_name, topic, target.h0, NULL, dry_run);
    ELSE
        redelivered := 0;
        skipped := (SELECT pg_catalog.count(*) FROM durable_notify._unread(pos.subscription_id) u WHERE u.id <= target.h0);
        IF NOT dry_run THEN
            PERFORM durable_notify._save_position(pos, target, pos.lease_tokens);
            PERFORM durable_notify._ring(topic, '0');
        END IF;
    END IF;
    IF NOT dry_run THEN
        PERFORM durable_notify._record_audit('seek', group_name, pg_catalog.jsonb_build_object(
            'after_id', target.h0, 'redelivered', redelivered, 'skipped', skipped), topic, NULL, why);
    END IF;
END
$function$;
