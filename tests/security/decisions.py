"""Who may call which function of the schema: a decision for each, and what is wrong otherwise."""

from __future__ import annotations

from typing import Any

import psycopg

Connection = psycopg.Connection[Any]

GRANTED = {"publisher", "inserter", "consumer", "other", "reader", "observer"}
MAINTAINERS = {"maintainer"}
CONSUMERS = {"consumer", "other"}
OWNER: set[str] = set()


def _decided(kinds: set[str], names: str) -> dict[str, set[str]]:
    return dict.fromkeys(names.split(), kinds)


#: What the owner does to groups, topics and roles.
BY_HAND = (
    "rename_group delete_group set_notify_policy reanchor prune_dedup prune_inbox grant_access revoke_access"
    " _apply_grants last_id set_mirror create_compat drop_compat watch unwatch"
    " set_retention delete_retention retention_watermark set_record_age"
    " erase erase_batch set_operator_events operator_events create_partitions maintain_partitions partitions plan_archive still_archiving advance_archive prune_audit empty_all"
)
#: By function, the kinds of roles that may call it besides the owner. A twin, _name_granted, is as name. Only
#: the owner may call a private function that is not here.
MAY: dict[str, set[str]] = {
    **_decided(GRANTED | MAINTAINERS, "_is_owner min_client_version"),
    **_decided(GRANTED, "channel notify_policy"),
    **_decided(
        MAINTAINERS,
        "maintain maintain_due maintain_begin maintain_steps maintain_step maintain_alarms maintain_end",
    ),
    **_decided(
        {"publisher"},
        "publish publish_many notify topic_of_channel _percent_encode"
        " capture_begin capture capture_progress already_published"
        " set_schedule publish_ticks run_schedule pause_schedule resume_schedule delete_schedule schedules",
    ),
    **_decided(
        {"inserter"},
        "_no_waiter _no_pattern_waiter _family _has_waiter _is_message _validate_message _has_controls _notify_waiters mirror_of _key_required _notify_payload",
    ),
    **_decided({"reader"}, "read_from read latest browse topics log_id last_removed"),
    **_decided(
        CONSUMERS,
        "subscribe unsubscribe discover configure pause resume claim settle unacknowledged once extend release next_due renew_active"
        " resign_active never_published seek start_replay advance_replays cancel_replay redrive discard retry_now drop_retries"
        " create_webhook change_webhook rotate_webhook_secret delete_webhook note_webhook webhooks",
    ),
    **_decided(
        CONSUMERS | {"observer"},
        "status unclaimed_topics leases messages_between groups blocking_publishers replay_jobs dead_letters retries retry_counts blocked_keys message_states audit_entries"
        " retention retention_blockers lost_messages record_ages topic_storage maintenance_status",
    ),
    "bridges": {"observer"},
    **_decided(
        CONSUMERS | {"reader"},
        "_doorbell_class _topic_mark _try_doorbell _release_doorbell arm disarm armed _arm_topics _disarm_topics unnotified_transactions still_running _open_writers",
    ),
    **_decided(OWNER, BY_HAND),
}
#: These run with the search_path of their caller, and name their operators in full: it would cost each
#: message to set another one. _is_owner, notify_policy, _key_required, mirror_of, _doorbell_class,
#: _family and _is_message are put in place of their calls.
ON_THE_CALLERS_PATH = {
    "publish", "_outbox_after_insert", "_is_owner", "notify_policy", "mirror_of", "_key_required", "channel", "_no_waiter", "_notify_waiters",
    "_has_controls", "_doorbell_class", "_family", "_is_message",
    "_no_pattern_waiter", "_try_doorbell", "_release_doorbell",
    "maintain", "erase",  # with a setting they could not commit
}  # fmt: skip
#: A trigger for tables of others, whose writers need no rights here. Who makes triggers with it needs EXECUTE.
TRIGGERS_WITH_THE_OWNERS_RIGHTS = {"_watch_trigger"}
PATH = "search_path=pg_catalog, durable_notify, pg_temp"


def base(name: str) -> str:
    """The function that a twin is the twin of."""
    return name.removesuffix("_granted").removeprefix("_" if name.endswith("_granted") else "")


def may_call(name: str) -> set[str]:
    """The kinds of roles that may call a function; an error if that was not decided."""
    return MAY.get(base(name), OWNER) if base(name).startswith("_") else MAY[base(name)]


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
        if base(name) not in MAY and not base(name).startswith("_"):
            found.append(f"{name}: who may call it is not decided")
        if public:
            found.append(f"{name}: PUBLIC may call it")
        trigger = name in TRIGGERS_WITH_THE_OWNERS_RIGHTS
        if definer != (trigger or name.endswith("_granted")):
            found.append(f"{name}: runs with {'the owner' if definer else 'the caller'}'s rights")
        if definer and not trigger and "PERFORM durable_notify._require" not in source:
            found.append(f"{name}: asks for nothing")
        callable_by_others = MAY.get(base(name)) or name == "_publish_with_options"
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
    found += [f"{name}: _has_grant to PUBLIC" for (name,) in conn.execute(query).fetchall()]
    return sorted(found)
