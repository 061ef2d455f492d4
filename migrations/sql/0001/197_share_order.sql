CREATE FUNCTION durable_notify.share_order(subscription_id integer) RETURNS durable_notify.consumer_group
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    options durable_notify.consumer_group;
BEGIN
    -- The group of a subscription, whose order_by stays as it is until the transaction ends. Who writes
    -- keys into deferred calls this first; see the table ordering. Where the snapshot is older than a
    -- change of the order this fails with a serialization failure.
    PERFORM FROM durable_notify.ordering o JOIN durable_notify.subscription s ON s.group_id = o.group_id
      WHERE s.id = share_order.subscription_id FOR SHARE OF o;
    -- A new statement: it sees what was committed before the row was locked.
    SELECT g.* INTO STRICT options
      FROM durable_notify.subscription s JOIN durable_notify.consumer_group g ON g.id = s.group_id
     WHERE s.id = share_order.subscription_id;
    RETURN options;
END
$function$;
