"""Who may call which function of the schema: a decision for each, and what is wrong otherwise."""

from __future__ import annotations

from typing import Any

import psycopg

Connection = psycopg.Connection[Any]

GRANTED = {"publisher", "inserter", "consumer", "other", "reader", "observer"}
CONSUMERS = {"consumer", "other"}
OWNER: set[str] = set()


def _decided(kinds: set[str], names: str) -> dict[str, set[str]]:
    return dict.fromkeys(names.split(), kinds)


#: What the owner does to groups, topics and roles.
BY_HAND = (
    "rename_group delete_group set_wakeups reanchor prune_dedup prune_inbox grant_access revoke_access"
    " issue_grants last_id set_mirror create_compat drop_compat watch unwatch bridges"
    " set_retention forget_retention removable_below maintain maintain_begin maintain_steps maintain_step maintain_end"
    " make_partitions tidy_leaves leaves plan_archive advance_archive prune_audit empty_all"
)
#: By function, the kinds of roles that may call it besides the owner. A twin, name_granted, is as name.
MAY: dict[str, set[str]] = {
    **_decided(GRANTED, "has_own_rights channel wakeups oldest_package"),
    **_decided(
        {"publisher"},
        "publish publish_many notify topic_of_channel escaped"
        " capture_begin capture capture_heard notified_already",
    ),
    **_decided(
        {"inserter"},
        "nobody_waits somebody_waits refuse has_controls wake mirror_of needs_key notify_raw",
    ),
    **_decided({"reader"}, "read_start read latest topics log_id"),
    **_decided(
        CONSUMERS,
        "subscribe discover configure pause resume claim claim_alone settle still_out once extend release next_due stay_active"
        " stand_down never_published replay seek start_replay advance_replays cancel_replay redrive discard",
    ),
    **_decided(
        CONSUMERS | {"observer"},
        "status backlog leases progress messages_between groups waiting_for replay_jobs dead_letters audit_entries retention lagging losses",
    ),
    **_decided(
        CONSUMERS | {"reader"},
        "topic_mark arm disarm armed arm_all disarm_all unannounced still_running writers",
    ),
    **_decided(OWNER, BY_HAND),
    **_decided(
        OWNER,
        # What only other functions call.
        "chosen_dead_letters advance_replay allowed anchor_here attempt_of backoff be_active bury busy_keys caller"
        " carried_over check_order chosen_columns claim_topic columns_watched committed_snapshot dedup_id defer drop_lease"
        " due_in_topic due_in_topics fenced_leases follow_ids functions_for granted group_lock has_something_under_way heads held_by_strangers"
        " hold_group hold_group_and id_before in_flight json_or_text key_of_row keys_of later_of_key let_go may_see message_of move"
        " note_audit note_settled order_anew order_key own_leases publish_times publish_with published"
        " publishing raise_elsewhere raise_settled raise_superseded read_horizon read_window"
        " reanchor_place replay_fits require require_seeing retry ring ring_group role_of_access"
        " room_to_read seconds_until send_back share_order sort_out stragglers subscribe_topics take_batch take_dead_letters"
        " take_deferred take_over topic_regex topics_meant topics_of_the_log undelivered watch_name watched"
        # Of retention and maintenance.
        " begin_anew compact expire_leases first_id_since hold_functions hold_removing hold_leaves keep_all note_unwanted is_subscribed is_referenced older_snapshots has_appeared lost_place measure note_loss note_losses policy_below"
        " refused_retention remove_compacted remove_rows renew_statistics retention_of retention_rank seal_log sealed_below"
        " settled_below settled_by_all sweep undelivered_upto write_needs_key"
        " closed_below close_leaves truncated remove_leaf drop_leaf repack_leaf copy_leaf put_copy make_leaf bar_leaf refuse_late first_id_for_a_leaf set_closed leaf_goes"
        " topics_of_leaf discover_next skip_to_leaf lock_log_and",
    ),
}
#: These run with the search_path of their caller, and name their operators in full: it would cost each
#: message to set another one. has_own_rights, wakeups, needs_key and mirror_of are put in place of their calls.
ON_THE_CALLERS_PATH = {
    "publish", "published", "has_own_rights", "wakeups", "mirror_of", "needs_key", "channel", "nobody_waits", "wake",
    "has_controls",
}  # fmt: skip
#: A trigger for tables of others, whose writers need no rights here. Who makes triggers with it needs EXECUTE.
TRIGGERS_WITH_THE_OWNERS_RIGHTS = {"watched"}
PATH = "search_path=pg_catalog, durable_notify, pg_temp"


def base(name: str) -> str:
    """The function that a twin is the twin of."""
    return name.removesuffix("_granted")


def findings(conn: Connection) -> list[str]:
    """What is wrong with the rights on the schema, as the catalog has them; nothing, if all is well."""
    found = []
    query = """
        SELECT p.proname, p.prosecdef, COALESCE(p.proconfig, '{}'), p.prosrc,
               EXISTS (SELECT FROM aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) a
                        WHERE a.grantee = 0)
          FROM pg_proc p WHERE p.pronamespace = 'durable_notify'::regnamespace"""
    seen = set()
    for name, definer, config, source, public in conn.execute(query).fetchall():
        seen.add(name)
        if base(name) not in MAY:
            found.append(f"{name}: nobody has decided who may call it")
        if public:
            found.append(f"{name}: everybody may call it")
        trigger = name in TRIGGERS_WITH_THE_OWNERS_RIGHTS
        if definer != (trigger or name.endswith("_granted")):
            found.append(f"{name}: runs with {'the owner' if definer else 'the caller'}'s rights")
        if definer and not trigger and "PERFORM durable_notify.require" not in source:
            found.append(f"{name}: asks for nothing")
        callable_by_others = MAY.get(base(name)) or name == "publish_with"
        if (
            definer or (callable_by_others and name not in ON_THE_CALLERS_PATH)
        ) and PATH not in config:
            found.append(f"{name}: runs on whatever search_path")
    found += [f"{name}: is not there" for name in MAY.keys() - {base(name) for name in seen}]
    query = """
        SELECT c.relname FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
         WHERE c.relnamespace = 'durable_notify'::regnamespace AND a.grantee = 0
         UNION ALL SELECT 'the schema' FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) a
         WHERE n.nspname = 'durable_notify' AND a.grantee = 0
         UNION ALL SELECT c.relname || '.' || t.attname FROM pg_class c
          JOIN pg_attribute t ON t.attrelid = c.oid CROSS JOIN LATERAL aclexplode(t.attacl) a
         WHERE c.relnamespace = 'durable_notify'::regnamespace AND a.grantee = 0"""
    found += [f"{name}: granted to everybody" for (name,) in conn.execute(query).fetchall()]
    return sorted(found)
