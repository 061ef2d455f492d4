CREATE FUNCTION durable_notify.arm_all(topics text[]) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    wanted text;
    barred text[] := '{}';
    silent text[] := '{}';
    -- Trap: of a full queue PostgreSQL removes nothing, even once all have read it, until somebody looks.
    crowded boolean := pg_catalog.pg_notification_queue_usage() > 0.5;
BEGIN
    -- Arm the doorbells of topics that this session has not armed, then look who may have passed
    -- them before. Of the topics, barred: somebody holds their key exclusively; silent: they never ring.
    -- crowded: the queue of notifications is half full, and none is armed: publishers who ring when it
    -- is full cannot commit.
    FOREACH wanted IN ARRAY topics LOOP
        IF durable_notify.wakeups(wanted) = 'never' THEN
            silent := silent || wanted;
        ELSIF crowded OR NOT pg_catalog.pg_try_advisory_lock_shared(1685024362, pg_catalog.hashtext(wanted)) THEN
            barred := barred || wanted;
        END IF;
    END LOOP;
    RETURN pg_catalog.jsonb_build_object(
        'barred', barred, 'silent', silent, 'crowded', crowded, 'unannounced', durable_notify.unannounced()::text[]);
END
$function$;
