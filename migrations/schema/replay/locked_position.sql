CREATE FUNCTION durable_notify._locked_position(group_name text, topic text) RETURNS durable_notify.position
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    pos durable_notify.position;
    locked_group integer := (durable_notify._lock_group(group_name)).id;
BEGIN
    -- Return the position of a group in a topic, with the group's lock, which is kept until the
    -- transaction ends.
    SELECT p.* INTO pos FROM durable_notify.subscription s
      JOIN durable_notify.position p ON p.subscription_id = s.id
     WHERE s.group_id = locked_group AND s.topic = _locked_position.topic
     ORDER BY p.seq DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'group "%" is not subscribed to topic "%"', group_name, topic USING ERRCODE = 'DN006',
              HINT = 'durable_notify.status() lists what each group consumes.';
    END IF;
    RETURN pos;
END
$function$;
