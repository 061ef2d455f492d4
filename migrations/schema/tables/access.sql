-- What roles other than the owner may do: grant_access() writes it, and the functions named ..._granted
-- read it; see _is_owner().
--   action:     publish, consume, read, observe, maintain, or insert: INSERT statements of their own
--   pattern:    the topics, of publish, consume and read; regex is the same as _topic_regex() has it
--   group_name: the group, of consume
-- The role by its oid: a role that is dropped, and created again under the same name, is another.
CREATE TABLE durable_notify.access (
    role       regrole     NOT NULL,
    action     text        NOT NULL,
    pattern    text        COLLATE "C" NOT NULL DEFAULT '',
    group_name text        NOT NULL DEFAULT '',
    regex      text        NOT NULL DEFAULT '',
    granted_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    granted_by text        NOT NULL DEFAULT CURRENT_USER,
    PRIMARY KEY (role, action, pattern, group_name),
    CONSTRAINT access_action CHECK (action IN ('publish', 'consume', 'read', 'observe', 'insert', 'maintain')),
    CONSTRAINT access_pattern_where_there_is_one CHECK ((pattern <> '') = (action IN ('publish', 'consume', 'read'))),
    CONSTRAINT access_group_name_where_there_is_one CHECK ((group_name <> '') = (action = 'consume'))
);
