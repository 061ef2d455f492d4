CREATE FUNCTION durable_notify.role_of_access(role text) RETURNS regrole
LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    found regrole := pg_catalog.to_regrole(pg_catalog.quote_ident(role));
BEGIN
    -- The role of a name, for a change of what it may do; one at a time. What is left of roles that were
    -- dropped goes.
    IF found IS NULL THEN
        RAISE EXCEPTION 'there is no role "%"', role
            USING ERRCODE = '22023', HINT = 'CREATE ROLE makes one. Nothing was changed.';
    END IF;
    PERFORM durable_notify.hold_functions();
    DELETE FROM durable_notify.access a WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = a.role);
    RETURN found;
END
$function$;

CREATE FUNCTION durable_notify.functions_for(action text) RETURNS SETOF regprocedure
LANGUAGE sql STABLE AS $function$
    -- The functions that a role needs for what it was granted, their twins included.
    SELECT p.oid::regprocedure FROM pg_catalog.pg_proc p
     WHERE p.pronamespace = 'durable_notify'::regnamespace
       AND pg_catalog.regexp_replace(p.proname, '_granted$', '') = ANY (
           '{has_own_rights,channel,wakeups,oldest_package}'::text[]
           || CASE action
               WHEN 'publish' THEN '{publish,publish_many,notify,topic_of_channel,escaped,capture_begin,capture,capture_heard,notified_already}'::text[]
               WHEN 'insert' THEN '{nobody_waits,somebody_waits,refuse,has_controls,wake,mirror_of,needs_key,notify_raw}'
               WHEN 'observe' THEN '{status,backlog,leases,progress,messages_between,groups,waiting_for,replay_jobs,dead_letters,audit_entries,retention,lagging,losses}'
               WHEN 'read' THEN '{read_start,read,latest,topics,log_id}'
               WHEN 'consume' THEN '{subscribe,discover,configure,pause,resume,claim,claim_alone,settle,still_out,once,extend,release,never_published,
                   next_due,stay_active,stand_down,replay,seek,start_replay,advance_replays,cancel_replay,redrive,discard,
                   status,backlog,leases,progress,messages_between,groups,waiting_for,replay_jobs,dead_letters,audit_entries,retention,lagging,losses}' END
           || CASE WHEN action IN ('read', 'consume')
               THEN '{topic_mark,arm,disarm,armed,arm_all,disarm_all,unannounced,still_running,writers}' ELSE '{}'::text[] END)
$function$;

CREATE FUNCTION durable_notify.issue_grants(grantee regrole) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    granted_action text;
    callable regprocedure;
BEGIN
    -- Give a role the PostgreSQL privileges for what the table access says of it, and take back others
    -- that it was given for this.
    EXECUTE pg_catalog.format('REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA durable_notify FROM %s', grantee);
    EXECUTE pg_catalog.format('REVOKE SELECT ON durable_notify.schema_version FROM %s', grantee);
    EXECUTE pg_catalog.format('REVOKE INSERT, SELECT ON durable_notify.outbox FROM %s', grantee);
    EXECUTE pg_catalog.format('REVOKE USAGE ON SCHEMA durable_notify FROM %s', grantee);
    FOR granted_action IN SELECT DISTINCT a.action FROM durable_notify.access a WHERE a.role = grantee LOOP
        EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA durable_notify TO %s', grantee);
        EXECUTE pg_catalog.format('GRANT SELECT ON durable_notify.schema_version TO %s', grantee);
        FOR callable IN SELECT f FROM durable_notify.functions_for(granted_action) AS f LOOP
            EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %s', callable, grantee);
        END LOOP;
        IF granted_action = 'insert' THEN
            -- By column: nobody writes xid or id. The id is for RETURNING.
            EXECUTE pg_catalog.format(
                'GRANT INSERT (topic, key, payload, data, headers, deliver_at, expires_at), SELECT (id)'
                ' ON durable_notify.outbox TO %s', grantee);
        END IF;
    END LOOP;
END
$function$;
