CREATE FUNCTION durable_notify._erase_messages(topic text, ids bigint[]) RETURNS jsonb
LANGUAGE plpgsql
SET enable_seqscan = off AS $function$
#variable_conflict use_column
DECLARE
    places jsonb := durable_notify._about_messages(topic, ids);
    copied bigint := (SELECT p.copied FROM durable_notify.partition_settings p);
    copy regclass := pg_catalog.to_regclass(pg_catalog.format('durable_notify.outbox_%s_copy', copied));
BEGIN
    -- Remove messages of a topic, and what waits or is remembered of them; returns how much, by place.
    -- The caller holds _lock_for_erasure().
    --
    -- Positions stay as they are: a message that does not exist is nowhere read, and is no loss.
    DELETE FROM durable_notify.deferred d USING durable_notify.subscription s
     WHERE s.topic = _erase_messages.topic AND d.subscription_id = s.id AND d.message_id = ANY (ids);
    DELETE FROM durable_notify.dedup d WHERE d.topic = _erase_messages.topic AND d.message_id = ANY (ids);
    DELETE FROM durable_notify.processed_message p USING durable_notify.subscription s
     WHERE s.topic = _erase_messages.topic AND p.group_id = s.group_id AND p.message_id = ANY (ids);
    PERFORM durable_notify._delete_messages(topic, ids);
    IF copy IS NOT NULL THEN  -- or it would last until the copy takes its partition's place
        EXECUTE pg_catalog.format('DELETE FROM %s c WHERE c.topic = $1 AND c.id = ANY ($2)', copy) USING topic, ids;
    END IF;
    IF places ? 'archiving' THEN
        -- The worker that has read them must not finish its file: it finds that it does not maintain any
        -- more. The next round reads the same stretch again.
        UPDATE durable_notify.maintenance m SET worker = NULL, beat_at = NULL;
    END IF;
    RETURN places;
END
$function$;

CREATE FUNCTION durable_notify._erase_rest(topic text, key text) RETURNS jsonb
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    places jsonb := durable_notify._rest_of_key(topic, key);
BEGIN
    -- Remove what is kept of a key in a topic beside the outbox; returns how much, by place. The caller
    -- holds _lock_for_erasure().
    DELETE FROM durable_notify.dead_letter d WHERE d.topic = _erase_rest.topic AND d.key = _erase_rest.key;
    DELETE FROM durable_notify.compacted_key k WHERE k.topic = _erase_rest.topic AND k.key = _erase_rest.key;
    UPDATE durable_notify.replay_job j SET keys = pg_catalog.array_remove(j.keys, _erase_rest.key)
      FROM durable_notify.subscription s
     WHERE s.topic = _erase_rest.topic AND j.subscription_id = s.id AND j.keys @> ARRAY[_erase_rest.key];
    RETURN places;
END
$function$;

CREATE FUNCTION durable_notify._lock_for_erasure(topic text, key text, ids bigint[]) RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '0.2s' AS $function$
#variable_conflict use_column
DECLARE
    since timestamptz := pg_catalog.clock_timestamp();
    reader record;
BEGIN
    -- Take the locks under which no session keeps a copy of a topic's messages, until the transaction
    -- ends: the lock of removal, and of each group its lock and its row of ordering. All at once or
    -- none; gives up after 5 seconds.
    --
    -- 1. Under the lock of removal, nothing is redelivered from the past, and no group is created.
    -- 2. Claims, and who changes a group, hold the group's lock.
    -- 3. Settles that retry or reject have the row of ordering in shared mode until they commit. This
    --    changes it: one whose snapshot is older, and still sees the message, fails with 40001.
    -- Also rows that publishers with a dedup key, or replays, may have locked.
    LOOP
        BEGIN
            IF NOT durable_notify._lock_removal() THEN
                RAISE lock_not_available;
            END IF;
            FOR reader IN SELECT s.group_id FROM durable_notify.subscription s WHERE s.topic = _lock_for_erasure.topic ORDER BY s.group_id LOOP
                PERFORM durable_notify._acquire_group_lock(reader.group_id);
                UPDATE durable_notify.ordering o SET changes = o.changes + 1 WHERE o.group_id = reader.group_id;
            END LOOP;
            PERFORM FROM durable_notify.dedup d WHERE d.topic = _lock_for_erasure.topic AND d.message_id = ANY (ids) FOR UPDATE;
            PERFORM FROM durable_notify.replay_job j JOIN durable_notify.subscription s ON s.id = j.subscription_id
              WHERE s.topic = _lock_for_erasure.topic AND j.keys @> ARRAY[_lock_for_erasure.key] FOR UPDATE OF j;
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            -- What was locked in the block is free again.
            IF pg_catalog.clock_timestamp() > since + interval '5 seconds' THEN
                RAISE EXCEPTION 'topic "%" is in use: an open transaction redelivers, retries, rejects or removes its messages', topic
                    USING ERRCODE = '55P03',
                          HINT = 'Nothing of this batch was erased. Try again when it has ended: pg_stat_activity shows it.';
            END IF;
        END;
        PERFORM pg_catalog.pg_sleep(0.02);
    END LOOP;
END
$function$;
