CREATE FUNCTION durable_notify.rename_group(group_name text, new_name text) RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '5s'
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    changed integer := durable_notify._lock_group_and(group_name, 'name');
BEGIN
    -- Give a group another name; it keeps its position, leases and dead letters. Consumers that run
    -- under the old name end with an error at their next claim.
    UPDATE durable_notify.consumer_group g SET name = new_name WHERE g.id = changed;
    UPDATE durable_notify.operator_event e SET group_name = new_name WHERE e.group_name = rename_group.group_name;
    UPDATE durable_notify.operator_alarm e SET group_name = new_name WHERE e.group_name = rename_group.group_name;
    UPDATE durable_notify.access a SET group_name = new_name WHERE a.group_name = rename_group.group_name;
    PERFORM durable_notify._record_audit('rename', group_name, pg_catalog.jsonb_build_object('new_name', new_name));
    PERFORM durable_notify._ring_group(changed);
EXCEPTION
    WHEN unique_violation THEN
        RAISE EXCEPTION 'a group "%" exists already', new_name
            USING ERRCODE = '22023', HINT = 'Delete it first, or choose another name.';
    WHEN check_violation THEN
        RAISE EXCEPTION 'a group''s name must have 1 to 255 bytes and no control characters'
            USING ERRCODE = '22023', HINT = 'Choose another name.';
END
$function$;
