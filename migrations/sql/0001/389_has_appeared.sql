CREATE FUNCTION durable_notify.has_appeared(leaf regclass, since pg_snapshot) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $function$
DECLARE
    appeared boolean;
BEGIN
    -- Whether a leaf has messages that a snapshot does not see; found by a few probes of the index for each topic.
    EXECUTE pg_catalog.format(
        'SELECT EXISTS ('
        ' SELECT FROM durable_notify.topics_of_leaf(%1$L::regclass) t'
        '  CROSS JOIN (SELECT pg_catalog.pg_snapshot_xmax($1), NULL::xid8 UNION ALL SELECT x, x FROM pg_catalog.pg_snapshot_xip($1) x)'
        '     AS late (first, last)'
        '  CROSS JOIN LATERAL (SELECT FROM %1$s o WHERE o.topic = t.topic AND o.xid >= late.first'
        '     AND (late.last IS NULL OR o.xid <= late.last) ORDER BY o.xid LIMIT 1) AS o)', leaf)
       INTO appeared USING since;
    RETURN appeared;
END
$function$;
