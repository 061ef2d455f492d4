CREATE FUNCTION durable_notify.arm(topic text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    mark integer := durable_notify._topic_mark(topic);
BEGIN
    -- From now on, have everything that is published to a topic ring, until disarm() or the end of this
    -- session: for programs that LISTEN themselves. True: armed, or it was already.
    --
    -- LISTEN first, and commit; then arm, and read once more: what was published before did not ring.
    -- Transactions of unnotified_transactions() may have looked at the bell before, and will commit
    -- without ringing: read again once still_running() no longer returns one of them.
    -- False: another session holds the key exclusively, usually for a moment, or the queue of
    -- notifications is half full; read, and try again. '' arms the bell of every topic, and orders.>
    -- that of all whose first word is orders, of several: their names come on the channel
    -- durable_notify. A session does not ring for itself: publish on another.
    IF durable_notify.notify_policy(topic) = 'never' THEN
        RAISE EXCEPTION 'topic "%" never rings', topic USING ERRCODE = '22023',
              HINT = 'Read it at intervals, or let it ring: durable_notify.set_notify_policy().';
    END IF;
    -- Trap: waiting for the key would be waiting behind a stranger that holds it.
    IF durable_notify.armed(topic) THEN
        RETURN true;
    END IF;
    -- Trap: in one expression, of functions that no cancel interrupts. In between it would keep one of
    -- the locks: a bell that disarm() does not know, or a topic that looks armed and never rings.
    RETURN CASE WHEN pg_catalog.pg_notification_queue_usage() > 0.5  -- see _arm_topics()
                  OR NOT durable_notify._try_doorbell(topic) THEN false
                WHEN pg_catalog.pg_try_advisory_lock_shared(1685024363, mark) THEN true
                ELSE NOT durable_notify._release_doorbell(topic) END;
END
$function$;

CREATE FUNCTION durable_notify._arm_topics(topics text[]) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    wanted text;
    barred text[] := '{}';
    silent text[] := '{}';
    -- Trap: PostgreSQL removes nothing from a full queue, even once all have read it, until a session
    -- looks.
    crowded boolean := pg_catalog.pg_notification_queue_usage() > 0.5;
BEGIN
    -- Arm the doorbells of topics that this session has not armed, then look for transactions that may
    -- have passed them before. Our listener calls this, and knows what it has armed. arm() is for one
    -- topic, and keeps a mark of it. Of the topics, barred: another session holds their key exclusively;
    -- silent: they never ring. crowded: the queue of notifications is half full, and none is armed:
    -- publishers that ring when it is full cannot commit.
    FOREACH wanted IN ARRAY topics LOOP
        IF durable_notify.notify_policy(wanted) = 'never' THEN
            silent := silent || wanted;
        ELSIF crowded OR NOT durable_notify._try_doorbell(wanted) THEN
            barred := barred || wanted;
        END IF;
    END LOOP;
    RETURN pg_catalog.jsonb_build_object(
        'barred', barred, 'silent', silent, 'crowded', crowded, 'unannounced', durable_notify.unnotified_transactions()::text[]);
END
$function$;

CREATE FUNCTION durable_notify._try_doorbell(topic text) RETURNS boolean
LANGUAGE sql VOLATILE AS $function$
    -- Take a doorbell in shared mode, if it is free; that of patterns with the key that publishers look
    -- at first; see _no_pattern_waiter().
    SELECT CASE WHEN topic OPERATOR(pg_catalog.<>) '' AND topic OPERATOR(pg_catalog.!~~) '%.>'
                THEN pg_catalog.pg_try_advisory_lock_shared(durable_notify._doorbell_class(), pg_catalog.hashtext(topic))
                WHEN NOT pg_catalog.pg_try_advisory_lock_shared(1685024365, 0) THEN false
                WHEN pg_catalog.pg_try_advisory_lock_shared(durable_notify._doorbell_class(), pg_catalog.hashtext(topic)) THEN true
                ELSE NOT pg_catalog.pg_advisory_unlock_shared(1685024365, 0) END
$function$;

CREATE FUNCTION durable_notify._release_doorbell(topic text) RETURNS boolean
LANGUAGE sql VOLATILE AS $function$
    -- Undo _try_doorbell().
    SELECT CASE WHEN pg_catalog.pg_advisory_unlock_shared(durable_notify._doorbell_class(), pg_catalog.hashtext(topic))
                THEN topic OPERATOR(pg_catalog.<>) '' AND topic OPERATOR(pg_catalog.!~~) '%.>'
                     OR pg_catalog.pg_advisory_unlock_shared(1685024365, 0)
                ELSE false END
$function$;

CREATE FUNCTION durable_notify._topic_mark(topic text) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
    -- A hash of a topic that is independent of the doorbell's, which is hashtext().
    SELECT ('x' || pg_catalog.left(pg_catalog.md5(topic), 8))::bit(32)::integer
$function$;

CALL durable_notify._grantable('arm', '{read,consume}');
CALL durable_notify._grantable('_arm_topics', '{read,consume}');
CALL durable_notify._grantable('_try_doorbell', '{read,consume}');
CALL durable_notify._grantable('_release_doorbell', '{read,consume}');
CALL durable_notify._grantable('_topic_mark', '{read,consume}');
