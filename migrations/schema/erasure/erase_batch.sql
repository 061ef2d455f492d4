CREATE FUNCTION durable_notify.erase_batch(
    key text, topics text[] DEFAULT NULL, after_topic text DEFAULT NULL, after_id bigint DEFAULT NULL,
    dry_run boolean DEFAULT false, why text DEFAULT NULL,
    OUT topic text, OUT upto_id bigint, OUT places jsonb
)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off SET lock_timeout = '5s'
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    looked record;
    rest jsonb := '{}';
BEGIN
    -- Remove what is kept of a key's messages among the next 20,000 messages of a topic; commit at once.
    -- Returns where to continue: give topic and upto_id as after_topic and after_id. topic is NULL once
    -- nothing is left. topics: topics or patterns; NULL: all. For the owner of the schema.
    --
    -- places: how many there were. Removed are messages, dead_letters, waiting (retries, and what waits
    -- for its time or its key), dedup_keys, once (notes of once()) and compacted_keys; in replays the
    -- key is removed from the conditions. Only counted are leased, messages that a consumer holds,
    -- publishers, transactions that were publishing when this began and may commit such messages, and
    -- archiving, 1 if the topic was being archived. With dry_run it counts all of them, and locks nothing.
    --
    -- A consumer that holds a message may still acknowledge it; if it retries or rejects it, nothing is
    -- kept. The audit records who, when, why, and the key's SHA-256.
    IF key IS NULL OR key = '' THEN
        RAISE EXCEPTION 'no key says which messages are to be erased' USING ERRCODE = '22023', HINT = 'Nothing was erased.';
    END IF;
    IF NOT dry_run AND pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN
        -- A frozen snapshot would leave out what others have kept since.
        RAISE EXCEPTION 'messages must be erased in a READ COMMITTED transaction'
            USING ERRCODE = '22023', HINT = 'Begin one with BEGIN ISOLATION LEVEL READ COMMITTED. Nothing was erased.';
    END IF;
    PERFORM durable_notify.log_id();  -- refuses an outbox that came from another cluster
    places := '{}';
    IF after_topic IS NULL THEN
        -- Before the first look: what is not in this list has committed, or is published later.
        places := durable_notify._nonzero('publishers', pg_catalog.cardinality(durable_notify._open_publishers()));
    END IF;
    topic := CASE WHEN after_id IS NOT NULL THEN after_topic ELSE durable_notify._next_topic_with(key, after_topic, topics) END;
    IF topic IS NULL THEN
        RETURN;
    END IF;
    SELECT pg_catalog.max(m.id) AS last, pg_catalog.count(*) AS messages,
           COALESCE(pg_catalog.array_agg(m.id) FILTER (WHERE m.key = erase_batch.key), '{}') AS ids
      INTO looked
      FROM (SELECT o.id, o.key FROM durable_notify.outbox o
             WHERE o.topic = erase_batch.topic AND o.id > COALESCE(after_id, 0) ORDER BY o.id LIMIT 20000) AS m;
    upto_id := CASE WHEN looked.messages = 20000 THEN looked.last END;
    IF upto_id IS NULL THEN
        rest := durable_notify._rest_of_key(topic, key);
    END IF;
    IF dry_run THEN
        places := places || rest || durable_notify._about_messages(topic, looked.ids);
    ELSIF looked.ids <> '{}' OR rest <> '{}' THEN
        PERFORM durable_notify._lock_for_erasure(topic, key, looked.ids);
        rest := CASE WHEN upto_id IS NULL THEN durable_notify._erase_rest(topic, key) ELSE '{}' END
                || durable_notify._erase_messages(topic, looked.ids);
        PERFORM durable_notify._record_audit('erase', '', pg_catalog.jsonb_build_object(
            'key_sha256', pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(key, 'UTF8')), 'hex'), 'places', rest),
            topic, pg_catalog.cardinality(looked.ids), why);
        PERFORM durable_notify._ring(topic, '0');  -- a key may be free
        places := places || rest;
    END IF;
END
$function$;

CREATE FUNCTION durable_notify._nonzero(place text, messages bigint) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $function$
    -- An object with a number, without it if it is 0.
    SELECT CASE WHEN messages = 0 THEN '{}' ELSE pg_catalog.jsonb_build_object(place, messages) END
$function$;

CREATE FUNCTION durable_notify._next_topic_with(key text, after text, wanted text[]) RETURNS text
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $function$
#variable_conflict use_column
DECLARE
    candidate text COLLATE "C" := COALESCE(after, '');
BEGIN
    -- The next topic, of those wanted, in which something may be kept of a key. One probe of an index
    -- for each topic, and a look at all dead letters.
    LOOP
        candidate := LEAST(
            (SELECT o.topic FROM durable_notify.outbox o WHERE o.topic > candidate ORDER BY o.topic LIMIT 1),
            (SELECT k.topic FROM durable_notify.compacted_key k WHERE k.topic > candidate ORDER BY k.topic LIMIT 1),
            (SELECT pg_catalog.min(d.topic COLLATE "C") FROM durable_notify.dead_letter d
              WHERE d.key = _next_topic_with.key AND d.topic COLLATE "C" > candidate));
        IF candidate IS NULL OR wanted IS NULL OR candidate = ANY (wanted)
           OR EXISTS (SELECT FROM pg_catalog.unnest(wanted) AS w (pattern)
                       WHERE w.pattern ~ '[*>]' AND candidate ~ durable_notify._topic_regex(w.pattern)) THEN
            RETURN candidate;
        END IF;
    END LOOP;
END
$function$;
