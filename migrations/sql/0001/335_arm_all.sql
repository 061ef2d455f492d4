CREATE FUNCTION durable_notify.arm_all(topics text[]) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    wanted text;
    barred text[] := '{}';
    silent text[] := '{}';
BEGIN
    -- Arm the doorbells of topics that this session has not armed, then look who may have passed
    -- them before. Of the topics, barred: somebody holds their key exclusively; silent: they never ring.
    FOREACH wanted IN ARRAY topics LOOP
        IF durable_notify.wakeups(wanted) = 'never' THEN
            silent := silent || wanted;
        ELSIF NOT pg_catalog.pg_try_advisory_lock_shared(1685024362, pg_catalog.hashtext(wanted)) THEN
            barred := barred || wanted;
        END IF;
    END LOOP;
    RETURN pg_catalog.jsonb_build_object(
        'barred', barred, 'silent', silent, 'unannounced', durable_notify.unannounced()::text[]);
END
$function$;
