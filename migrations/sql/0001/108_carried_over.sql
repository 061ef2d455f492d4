CREATE FUNCTION durable_notify.carried_over(message_id bigint) RETURNS void
LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    -- Take note that rows come from another cluster, by logical replication: nobody can read on before
    -- reanchor(). Ids drawn here follow those carried over, as if the sequence came with them.
    UPDATE durable_notify.anchor SET xid = '0' WHERE xid <> '0';
    PERFORM pg_catalog.setval('durable_notify.outbox_id_seq', message_id)
       FROM durable_notify.outbox_id_seq q
      WHERE q.last_value < message_id OR q.last_value = message_id AND NOT q.is_called;
END
$function$;
