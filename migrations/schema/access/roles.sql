CREATE FUNCTION durable_notify._resolve_role(role text) RETURNS regrole
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
    PERFORM durable_notify._lock_functions();
    DELETE FROM durable_notify.access a WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = a.role);
    RETURN found;
END
$function$;

CREATE FUNCTION durable_notify._granted_functions(action text) RETURNS SETOF regprocedure
LANGUAGE sql STABLE AS $function$
    -- The functions that a role needs for what it was granted, their twins included.
    SELECT p.oid::regprocedure FROM pg_catalog.pg_proc p
     WHERE p.pronamespace = 'durable_notify'::regnamespace
       AND pg_catalog.regexp_replace(p.proname, '^_(.*)_granted$', '\1') = ANY (
           '{_is_owner,channel,notify_policy,min_client_version}'::text[]
           || CASE action
               WHEN 'publish' THEN '{publish,publish_many,notify,topic_of_channel,_percent_encode,capture_begin,capture,capture_progress,already_published}'::text[]
               WHEN 'insert' THEN '{_no_waiter,_has_waiter,_validate_message,_has_controls,_notify_waiters,mirror_of,_key_required,_notify_payload}'
               WHEN 'observe' THEN '{status,backlog,leases,progress,messages_between,groups,blocking_publishers,replay_jobs,dead_letters,audit_entries,retention,retention_blockers,lost_messages}'
               WHEN 'read' THEN '{read_from,read,latest,topics,log_id}'
               WHEN 'consume' THEN '{subscribe,discover,configure,pause,resume,claim,claim_alone,settle,unacknowledged,once,extend,release,never_published,
                   next_due,renew_active,resign_active,seek,start_replay,advance_replays,cancel_replay,redrive,discard,
                   status,backlog,leases,progress,messages_between,groups,blocking_publishers,replay_jobs,dead_letters,audit_entries,retention,retention_blockers,lost_messages}' END
           || CASE WHEN action IN ('read', 'consume')
               THEN '{_doorbell_class,_topic_mark,arm,disarm,armed,_arm_topics,_disarm_topics,unnotified_transactions,still_running,_open_writers}' ELSE '{}'::text[] END)
$function$;

CREATE FUNCTION durable_notify._apply_grants(grantee regrole) RETURNS void
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
        FOR callable IN SELECT f FROM durable_notify._granted_functions(granted_action) AS f LOOP
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
