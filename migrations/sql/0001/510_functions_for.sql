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
               WHEN 'consume' THEN '{subscribe,discover,configure,pause,resume,claim,claim_alone,settle,still_out,once,extend,release,
                   next_due,stay_active,stand_down,replay,seek,start_replay,advance_replays,cancel_replay,redrive,discard,
                   status,backlog,leases,progress,messages_between,groups,waiting_for,replay_jobs,dead_letters,audit_entries,retention,lagging,losses}' END
           || CASE WHEN action IN ('read', 'consume')
               THEN '{topic_mark,arm,disarm,armed,arm_all,disarm_all,unannounced,still_running,writers}' ELSE '{}'::text[] END)
$function$;
