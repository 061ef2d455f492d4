CREATE FUNCTION durable_notify._record_cluster() RETURNS void
LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    new_log uuid := pg_catalog.gen_random_uuid();
BEGIN
    -- Record that the transaction ids in these tables are this cluster's; see the table
    -- cluster_identity.
    TRUNCATE durable_notify.cluster_identity;  -- not DELETE: the order of its rows matters
    BEGIN
        -- A subtransaction: its xid is higher than that of the transaction outside.
        INSERT INTO durable_notify.cluster_identity (slot, xid, log_id) VALUES (1, '0', new_log);
        UPDATE durable_notify.cluster_identity SET xid = xmin WHERE slot = 1;
    EXCEPTION WHEN division_by_zero THEN
        RAISE;  -- never; the clause makes the block a transaction
    END;
    INSERT INTO durable_notify.cluster_identity (slot, xid, log_id) VALUES (2, '0', new_log);
    UPDATE durable_notify.cluster_identity SET xid = xmin WHERE slot = 2;
END
$function$;

CREATE FUNCTION durable_notify._mark_replicated(message_id bigint) RETURNS void
LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    -- Record that rows come from another cluster, by logical replication: no consumer can read on
    -- before reanchor(). Ids drawn here follow those carried over, as if the sequence came with them.
    UPDATE durable_notify.cluster_identity SET xid = '0' WHERE xid <> '0';
    DELETE FROM durable_notify.stretch_time t WHERE t.first_id <= message_id AND t.next_id > message_id;
    PERFORM pg_catalog.setval('durable_notify.outbox_id_seq', message_id)
       FROM durable_notify.outbox_id_seq q
      WHERE q.last_value < message_id OR q.last_value = message_id AND NOT q.is_called;
END
$function$;

CREATE FUNCTION durable_notify._raise_foreign_cluster() RETURNS void
LANGUAGE plpgsql AS $function$
BEGIN
    -- Refuse to read if this is not the cluster in which the outbox was written; see the table
    -- cluster_identity.
    IF NOT EXISTS (SELECT FROM durable_notify.cluster_identity) THEN
        RAISE EXCEPTION 'the table durable_notify.cluster_identity is empty, as after a TRUNCATE of all tables: nothing can be read without it'
            USING ERRCODE = 'DN010',
                  HINT = 'If there is nothing to keep, as in tests, run SELECT durable_notify.empty_all(), now and in place of '
                         'TRUNCATE. If there are messages, run: durable-notify reanchor';
    END IF;
    RAISE EXCEPTION 'these messages were restored from, or replicated by, another cluster, whose transaction ids mean nothing here'
        USING ERRCODE = 'DN010',
              HINT = 'Nothing is lost. Stop what still copies into this database, then run: durable-notify reanchor';
END
$function$;
