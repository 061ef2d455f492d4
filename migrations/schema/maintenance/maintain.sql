CREATE PROCEDURE durable_notify.maintain(
    INOUT report jsonb DEFAULT NULL, IN seconds double precision DEFAULT 50,
    IN inbox_age interval DEFAULT NULL, IN audit_age interval DEFAULT NULL
)
LANGUAGE plpgsql AS $procedure$
DECLARE
    worker pg_catalog.text := pg_catalog.concat('maintain() of ', pg_catalog.pg_backend_pid(), ' since ', pg_catalog.clock_timestamp());
    until pg_catalog.timestamptz := pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => seconds);
    steps pg_catalog.text[];
    topics pg_catalog.text[];
    number pg_catalog.int4;
    done pg_catalog.int8;
    name pg_catalog.text;
    trouble pg_catalog.text;
BEGIN
    -- Run a round of maintenance, in many small transactions: for pg_cron and for programs without
    -- Python. It ends after so many seconds, and the next round continues from there. report: what it
    -- did; NULL: another session maintains now. What is to be archived stays: durable-notify maintain
    -- archives it. Outside a transaction only.
    --
    -- inbox_age: how long once() remembers, at least; audit_age: how long the audit, losses and ended
    -- replays are kept. NULL: as set_record_age() has it.
    -- Trap: with a SET clause, as the functions have, it could not commit. Each transaction sets its
    -- isolation itself, whatever default_transaction_isolation says: messages are not removed above
    -- READ COMMITTED.
    report := NULL;
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    IF NOT durable_notify.maintain_begin(worker, '0') THEN
        RETURN;
    END IF;
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    report := '{}';
    SELECT pg_catalog.array_agg(s.step), pg_catalog.array_agg(s.topic) INTO steps, topics FROM durable_notify.maintain_steps() AS s;
    FOR number IN 1 .. pg_catalog.cardinality(steps) LOOP
        LOOP
            trouble := NULL;
            BEGIN
                done := durable_notify.maintain_step(worker, steps[number], topics[number], inbox_age, audit_age);
            EXCEPTION WHEN OTHERS THEN
                done := 0;  -- the other steps still run
                trouble := SQLERRM;
            END;
            COMMIT;
            SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
            IF done IS NULL THEN
                RETURN;
            END IF;
            name := CASE WHEN trouble IS NULL THEN steps[number] ELSE pg_catalog.concat(steps[number], ' failed') END;
            IF trouble IS NOT NULL OR done OPERATOR(pg_catalog.>) 0 THEN
                report := pg_catalog.jsonb_set(report, ARRAY[name], CASE
                    WHEN trouble IS NOT NULL THEN pg_catalog.to_jsonb(trouble)
                    ELSE pg_catalog.to_jsonb(COALESCE((report OPERATOR(pg_catalog.->>) name)::pg_catalog.int8, 0)
                                             OPERATOR(pg_catalog.+) done) END);
            END IF;
            EXIT WHEN done OPERATOR(pg_catalog.<=) 0 OR pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>) until;
        END LOOP;
    END LOOP;
    PERFORM durable_notify.maintain_end(worker, report);
    COMMIT;
END
$procedure$;

CALL durable_notify._grantable('maintain', '{maintain}');
