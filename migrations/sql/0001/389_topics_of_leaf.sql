CREATE FUNCTION durable_notify.topics_of_leaf(leaf regclass) RETURNS TABLE (topic text, last_id bigint)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $function$
BEGIN
    -- The topics that have messages in a leaf, each with its highest id there. A loose index scan.
    RETURN QUERY EXECUTE pg_catalog.format(
        'WITH RECURSIVE topics AS ('
        '   (SELECT o.topic FROM %1$s o ORDER BY o.topic LIMIT 1)'
        '    UNION ALL'
        '    SELECT (SELECT o.topic FROM %1$s o WHERE o.topic > t.topic ORDER BY o.topic LIMIT 1)'
        '      FROM topics t WHERE t.topic IS NOT NULL)'
        ' SELECT t.topic, (SELECT o.id FROM %1$s o WHERE o.topic = t.topic ORDER BY o.id DESC LIMIT 1)'
        '   FROM topics t WHERE t.topic IS NOT NULL', leaf);
END
$function$;
