"""What two sessions may do at the same time, and what becomes of it: see tests/faults/test_pairs.py.

A scene is a group of its own with a message in every state there is. An operation is one call of a
public function that writes, on a scene. Of a pair, the one that began holds its transaction open
while the other acts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.faults.auditor import Facts
from tests.support.sessions import Session

Rows = list[tuple[Any, ...]]

# In CALL's own transactions, as claims need. A session of the owner runs it in autocommit mode.
PREPARATIONS = """
    CREATE TABLE watched (id integer PRIMARY KEY);
    SELECT durable_notify.set_retention(
        'kept.>', max_age => '1 microsecond', max_bytes => 1, on_lag => 'lose');
    SELECT durable_notify.set_retention('keyed.>', compact => true);
    SELECT durable_notify.set_retention('archived.>', max_age => '1 microsecond', archive => true);
    CREATE PROCEDURE scene(
        g text, t text, parts text[], INOUT ids bigint[], INOUT tokens bigint[], INOUT job bigint)
    LANGUAGE plpgsql AS $$
    DECLARE
        keys text[] := '{a,b,d,r,r,a,a,NULL,b,a,c,NULL}';
    BEGIN
        IF 'keyed' = ANY (parts) THEN
            keys := '{a,b,d,r,r,a,a,y,b,a,c,z}';
        END IF;
        PERFORM durable_notify.subscribe(g, ARRAY[t]);
        IF 'exclusive' = ANY (parts) THEN
            PERFORM durable_notify.configure(g, '{"exclusive": true}');
        END IF;
        IF 'pattern' = ANY (parts) THEN
            PERFORM durable_notify.subscribe(g, ARRAY['of.' || g || '.>']);
            PERFORM durable_notify.publish('of.' || g || '.one', '1');
        END IF;
        IF 'webhook' = ANY (parts) THEN
            PERFORM durable_notify.create_webhook(g, ARRAY[t], 'https://x');
        END IF;
        ids := ARRAY(SELECT durable_notify.publish_many(
            t, array_fill('1'::jsonb, ARRAY[12]), keys));
        COMMIT;
        tokens[3] := (SELECT min(c.token) FROM durable_notify.claim(g, ARRAY[t], 5, '1h', 'a') c);
        COMMIT;
        PERFORM durable_notify.settle(tokens[3], ids[1:2], ids[4:4], ids[3:3], '{1h}');
        COMMIT;
        tokens[1] := (SELECT min(c.token) FROM durable_notify.claim(g, ARRAY[t], 3, '1h', 'a') c);
        COMMIT;
        tokens[2] := (SELECT min(c.token) FROM durable_notify.claim(g, ARRAY[t], 1, '1h', 'a') c);
        COMMIT;
        UPDATE durable_notify.lease SET deadline = 'epoch' WHERE token = tokens[2];
        PERFORM durable_notify.set_schedule(t, t, '1', NULL, '1 hour', 'UTC', '2000-01-01');
        -- What is to be pruned.
        INSERT INTO durable_notify.audit (at, action, group_name) VALUES ('2000-01-01', 'x', g);
        INSERT INTO durable_notify.dedup (topic, dedup_key, until) VALUES (t, 'old', '2000-01-01');
        INSERT INTO durable_notify.processed_message (group_id, message_id, created_at)
        SELECT c.id, ids[1], '2000-01-01' FROM durable_notify.consumer_group c WHERE c.name = g;
        UPDATE durable_notify.deferred SET due_at = clock_timestamp() WHERE message_id = ids[4];
        IF 'job' = ANY (parts) THEN
            job := (SELECT j.job_id FROM durable_notify.start_replay(
                        g, t, upto_id => ids[2], rate_limit => 1) j);
            UPDATE durable_notify.replay_job SET stepped_at = 'epoch' WHERE id = job;
            PERFORM durable_notify.advance_replays(g, ARRAY[t]);
            UPDATE durable_notify.replay_job SET stepped_at = 'epoch' WHERE id = job;
        END IF;
        IF parts && '{kept,keyed,archived}' THEN
            COMMIT;
            PERFORM durable_notify._advance_watermark();
            COMMIT;
            PERFORM durable_notify._advance_watermark();
        END IF;
    END $$"""


@dataclass
class Scene:
    """A group, and what is known of it: two of its messages are acknowledged, one is dead, one is
    retried and one waits behind it, three are leased, one under a lease that has run out, three
    are not read yet."""

    number: int
    group: str
    topic: str
    names: dict[str, Any]
    facts: Facts
    is_there: bool = True

    def of(self, *places: int) -> set[int]:
        """Ids of messages by their places, from 1."""
        return {self.names[f"i{place}"] for place in places}


def build(session: Session, number: int, parts: set[str]) -> Scene:
    """Make a scene."""
    group = f"g.{number}"
    topic = f"{next((p for p in ('keyed', 'kept', 'archived') if p in parts), 'plain')}.{number}"
    query = "CALL scene(%s, %s, %s, NULL, NULL, NULL)"
    ((ids, tokens, job),) = session.run(query, group, topic, sorted(parts))
    names: dict[str, Any] = {"g": group, "t": topic, "job": job, "L1": tokens[0], "L2": tokens[1]}
    names |= {f"i{place}": i for place, i in enumerate(ids, 1)}
    names |= {"more": f"more.{number}", "new": f"new.{number}"}
    facts = Facts(acked=set(ids[:2]), committed=set(ids))
    if "job" in parts:
        facts.repeated = set(ids[:2])
    return Scene(number, group, topic, names, facts)


Effect = Callable[[Scene, Rows], None]


def acked(*places: int) -> Effect:
    return lambda scene, _rows: scene.facts.acked.update(scene.of(*places))


def again(scene: Scene, _rows: Rows) -> None:
    scene.facts.again = True


def skipped(scene: Scene, _rows: Rows) -> None:
    scene.facts.excused |= scene.of(10, 11, 12) | scene.facts.committed


def discarded(scene: Scene, rows: Rows) -> None:
    if rows[0][0]:
        scene.facts.excused |= scene.of(3, 6)


def dropped(scene: Scene, rows: Rows) -> None:
    """What waits for a retry is a dead letter now, which a discard may delete."""
    if rows[0][0]:
        scene.facts.excused |= scene.of(4)


def erased(scene: Scene, _rows: Rows) -> None:
    scene.facts.excused |= scene.of(4, 5)


def published(scene: Scene, rows: Rows) -> None:
    found = rows[0][0]
    scene.facts.committed.update(found if isinstance(found, list) else [found])


def renamed(scene: Scene, _rows: Rows) -> None:
    scene.group = scene.names["new"]


def deleted(scene: Scene, _rows: Rows) -> None:
    scene.is_there = False


class Op(NamedTuple):
    """A call of a public function that writes.

    `parts`: what it needs of the scene. `holds`: what it has locked until its transaction ends, and
    `waits`: what of that it waits for where another has it (as a rule, all), alone where that is
    marked with an exclamation mark. `ends`: what is no more once it has committed, and `needs`: what
    it is refused without.
    """

    sql: str
    holds: str = ""
    waits: str | None = None
    ends: str = ""
    needs: str = ""
    parts: str = ""
    effect: Effect | None = None


def call(function: str, holds: str = "", **about: Any) -> Op:
    return Op(f"SELECT * FROM durable_notify.{function}", holds, **about)


def of_group(function: str, holds: str = "", **about: Any) -> Op:
    """What is done under the group's lock."""
    return call(function, f"group! {holds}", **{"needs": "group", **about})


def settle(arguments: str, holds: str, messages: str, effect: Effect | None = None) -> Op:
    """A settle of messages, which cannot be settled by another then."""
    function = f"settle({arguments})"
    return call(function, holds, ends=messages, needs=f"{messages} group", effect=effect)


ONE = "%(L1)s"
ALL = "ARRAY[%(i6)s, %(i7)s, %(i8)s]"
MANY = "SELECT array_agg(p) FROM durable_notify.publish_many(%(t)s, '{1,2}', '{a,b}') p"
INSERT = "INSERT INTO durable_notify.outbox (topic, payload) VALUES (%(t)s, '1') RETURNING id"

#: What is done to messages and groups.
OPS: dict[str, Op] = {
    "publish": call("publish(%(t)s, '1', 'a')", "log", effect=published),
    "publish_many": Op(MANY, "log", effect=published),
    "subscribe": of_group("subscribe(%(g)s, ARRAY[%(t)s, %(more)s])", "removing"),
    "subscribe another": call("subscribe(%(new)s, ARRAY[%(t)s])", "new! removing", ends="new"),
    "discover": of_group("discover(%(g)s, '{}')", "removing log", parts="pattern"),
    "configure order": of_group("""configure(%(g)s, '{"order_by": "none"}')""", "order! log"),
    "configure strict": of_group("""configure(%(g)s, '{"order_by": "strict"}')""", "order! log"),
    "configure limit": of_group("""configure(%(g)s, '{"max_in_flight": 100}')"""),
    "pause": of_group("pause(%(g)s)"),
    "resume": of_group("resume(%(g)s)"),
    "rename_group": of_group(
        "rename_group(%(g)s, %(new)s)",
        "row! new! access",
        ends="group new",
        needs="group new",
        effect=renamed,
    ),
    "delete_group": of_group(
        "delete_group(%(g)s)",
        "row! L1! L2! beat! active! job! inbox! order!",
        ends="group m6 m7 m8 m9 job",
        effect=deleted,
    ),
    "unsubscribe": of_group(
        "unsubscribe(%(g)s, ARRAY[%(t)s])",
        "L1! L2! job!",
        ends="topic m6 m7 m8 m9 job",
        needs="group topic",
        effect=deleted,
    ),
    "claim": of_group(
        "claim(%(g)s, ARRAY[%(t)s], 100, '1 hour', 'a')",
        "active! L2! order log",
        waits="group! active! log",
        ends="m9",
        needs="group topic",
    ),
    "claim one": of_group(
        "claim(%(g)s, ARRAY[%(t)s], 1, '1 hour', 'a')",
        "active! L2! order log",
        waits="group! active! log",
        ends="m9",
        needs="group topic",
    ),
    "claim alone": of_group(
        "claim(%(g)s, ARRAY[%(t)s], 100, '1 hour', 'a', alone => true)",
        "active! L2! order log",
        waits="group! active! log",
        ends="m9",
        needs="group topic",
    ),
    "claim of another": of_group(
        "claim(%(g)s, ARRAY[%(t)s], 100, '1 hour', 'b')",
        "active!",
        needs="group topic",
        parts="exclusive",
    ),
    "ack": settle(f"{ONE}, {ALL}", "L1!", "m6 m7 m8", acked(6, 7, 8)),
    "ack first": settle(f"{ONE}, ARRAY[%(i6)s]", "L1 m6!", "m6", acked(6)),
    "ack last": settle(f"{ONE}, ARRAY[%(i8)s]", "L1 m8!", "m8", acked(8)),
    "ack late": settle("%(L2)s, ARRAY[%(i9)s]", "L2!", "m9", acked(9)),
    "retry": settle(f"{ONE}, '{{}}', {ALL}, '{{}}', '{{0,0,0}}'", "L1! order log", "m6 m7 m8"),
    "retry first": settle(
        f"{ONE}, '{{}}', ARRAY[%(i6)s], '{{}}', '{{0}}'", "L1 m6! m7! order log", "m6 m7"
    ),
    "reject first": settle(f"{ONE}, '{{}}', '{{}}', ARRAY[%(i6)s]", "L1 m6! log order", "m6"),
    "extend": call("extend(ARRAY[%(L1)s, %(L2)s], '1 hour')", "L1 L2 beat!"),
    "release": call(
        "release(ARRAY[%(L1)s, %(L2)s])", "L1! L2! log order", waits="log order", ends="m6 m7 m8 m9"
    ),
    "release late": call(
        "release(ARRAY[%(L2)s], true)", "L2! log order", waits="log order", ends="m9"
    ),
    "_reclaim_expired": call("_reclaim_expired()", "L2! log order", waits="log order", ends="m9"),
    "once": call("once(%(g)s, %(i6)s)", "row inbox!", needs="group"),
    "renew_active": call("renew_active(%(g)s, 'a', '1 hour')", "active!", parts="exclusive"),
    "resign_active": call("resign_active(%(g)s, 'a')", "active!", parts="exclusive"),
    "seek back": of_group(
        "seek(%(g)s, %(t)s, 0)", "removing log", needs="group topic", effect=again
    ),
    "seek to now": of_group(
        "seek(%(g)s, %(t)s, to_now => true)", "removing log", needs="group topic", effect=skipped
    ),
    "start_replay": of_group(
        "start_replay(%(g)s, %(t)s)",
        "removing log",
        ends="job",
        needs="group topic job",
        effect=again,
    ),
    "advance_replays": call(
        "advance_replays(%(g)s, ARRAY[%(t)s])", "job! log", waits="log", parts="job"
    ),
    "cancel_replay": of_group("cancel_replay(%(job)s)", "job!", parts="job"),
    "redrive": of_group("redrive(%(g)s, everything => true)", "removing log", needs="group log"),
    "discard": of_group("discard(%(g)s, everything => true)", "removing", effect=discarded),
    "retry_now": of_group("retry_now(%(g)s, everything => true)"),
    "drop_retries": of_group("drop_retries(%(g)s, everything => true)", "log", effect=dropped),
    "erase_batch": call(
        "erase_batch('r', ARRAY[%(t)s])",
        "removing! partitions group! order! log",
        effect=erased,
    ),
    "create_webhook": of_group(
        "create_webhook(%(g)s, ARRAY[%(t)s], 'https://x')", ends="unmade", needs="group unmade"
    ),
    "change_webhook": of_group(
        """change_webhook(%(g)s, '{"timeout": 3}')""", needs="group", parts="webhook"
    ),
    "rotate_webhook_secret": of_group("rotate_webhook_secret(%(g)s, '0')", parts="webhook"),
    "delete_webhook": of_group(
        "delete_webhook(%(g)s)",
        "row! L1! L2! beat! active! job! inbox! order!",
        ends="group m6 m7 m8 m9 job",
        parts="webhook",
        effect=deleted,
    ),
    "note_webhook": of_group("note_webhook(%(g)s, 'x', true)", parts="webhook"),
    "_discover_one": of_group("_discover_one()", "removing log", parts="pattern"),
    "_record_losses": call(
        "_record_losses(%(t)s, 9223372036854775807)",
        "group! L2! job! order log",
        ends="m9",
        parts="kept",
    ),
    "_delete_expired": call(
        "_delete_expired(%(t)s)",
        "removing! progress! log",
        waits="progress! log",
        ends="log",
        parts="kept",
    ),
    "compact": call(
        "_compact(%(t)s)", "removing! progress! log", waits="progress! log", parts="keyed"
    ),
}

#: The rest, that groups are not concerned with.
ASIDE: dict[str, Op] = {
    "publish once": call("publish(%(t)s, '1', 'a', dedup_key => 'k')", "log dedup!"),
    "insert": Op(INSERT, "log", effect=published),
    "notify": call("notify(%(t)s, '1')", "log"),
    "capture_begin": call("capture_begin(%(t)s, 'old', 'w')", "capture!"),
    "capture": call("capture(%(t)s, 'old', 'w', 1, '{x}', '{1}')", "capture! log"),
    "capture_progress": call("capture_progress(%(t)s, 'old', 'w', clock_timestamp())", "capture!"),
    "set_notify_policy": call("set_notify_policy(%(t)s, 'always')", "access!"),
    "set_mirror": call("set_mirror(%(t)s, 'old')", "access!"),
    "set_retention": call("set_retention(%(more)s, max_age => '1 day')", "access! removing log"),
    "delete_retention": call("delete_retention(%(more)s)", "access! removing"),
    "set_schedule": call(
        "set_schedule(%(t)s, %(t)s, '2', NULL, '1 hour', 'UTC', '2000-01-01')", "schedule!"
    ),
    "publish_ticks": call(
        "publish_ticks(%(t)s, '2000-01-01', '{2000-01-01}', '2100-01-01')",
        "schedule log",
        waits="log",
    ),
    "run_schedule": call("run_schedule(%(t)s)", "log", needs="schedule"),
    "pause_schedule": call("pause_schedule(%(t)s)", "schedule!", needs="schedule"),
    "resume_schedule": call("resume_schedule(%(t)s, '2100-01-01')", "schedule!", needs="schedule"),
    "delete_schedule": call(
        "delete_schedule(%(t)s)", "schedule!", ends="schedule", needs="schedule"
    ),
    "set_operator_events": call("set_operator_events('loss')", "events!"),
    "set_record_age": call("set_record_age('audit', '1 year')", "ages!"),
    "arm": call("arm(%(t)s)"),
    "disarm": call("disarm(%(t)s)"),
    "_arm_topics": call("_arm_topics(ARRAY[%(t)s])"),
    "_disarm_topics": call("_disarm_topics(ARRAY[%(t)s])"),
    "orphans": call("_delete_orphans()", "log"),
    "_advance_watermark": call("_advance_watermark()", "watermark! log"),
    "create_partitions": call("create_partitions()", "log partitions!", waits="log"),
    "maintain_partitions": call("maintain_partitions()", "removing! log", waits="log"),
    "_analyze_stale": call("_analyze_stale()"),
    "measure": call("_measure_topic(%(t)s)", "progress! log", parts="kept"),
    "plan_archive": call("plan_archive(%(t)s)", "progress! log", parts="archived"),
    "advance_archive": call("advance_archive(%(t)s, 1, 1)", "progress!", parts="archived"),
    "prune_dedup": call("prune_dedup()"),
    "prune_inbox": call("prune_inbox('2001-01-01')", "inbox!"),
    "prune_audit": call("prune_audit('2001-01-01')", "audit!"),
    "maintain_begin": call("maintain_begin('w', '0')", "maintenance!"),
    "maintain_step": call(
        "maintain_step('w', 'orphans')", "maintenance! log", waits="log maintenance"
    ),
    "maintain_end": call("maintain_end('w', '{}')", "maintenance!"),
    "reanchor": call("reanchor()", "log! access! removing"),
    "watch": call("watch('watched', %(t)s)", "watched!"),
    "unwatch": call("unwatch('watched', %(t)s)", "watched!"),
    "create_compat": call("create_compat()", "access!"),
    "drop_compat": call("drop_compat()", "access!"),
    "grant_access": call("grant_access('pairs', 'publish', ARRAY[%(t)s])", "access!"),
    "revoke_access": call("revoke_access('pairs')", "access!"),
}
OPS |= ASIDE

#: How a call may be refused because of what the other has ended.
REFUSALS = {
    "group": {"DN005"},
    "topic": {"DN006"},
    "new": {"22023"},
    "job": {"22023"},
    "unmade": {"22023"},
    "schedule": {"22023"},
    "log": {"DN008"},
    **{key: {"DN001", "DN002"} for key in ("m6", "m7", "m8", "m9")},
}


def may_wait(one: Op, other: Op) -> bool:
    """Whether a call may wait for another's open transaction, at all."""
    held = set(one.holds.split())
    for wanted in (other.holds if other.waits is None else other.waits).split():
        if f"{wanted.rstrip('!')}!" in held or (
            wanted.endswith("!") and wanted.rstrip("!") in held
        ):
            return True
    return False


def refusals(one: Op, other: Op) -> set[str]:
    """The SQLSTATEs that a call may end with since the other has committed."""
    shared = set(one.ends.split()) & set(other.needs.split())
    return {state for what in shared for state in REFUSALS[what]}
