/*
 * The doorbell: publishers ring only while a consumer waits, and no wake-up is lost.
 *
 * README.md beside this file says what is left out and why, how to run this, and what each
 * VARIANT_ and REACH_ is for.
 *
 * A set, of sessions or of transactions, is a byte with a bit for each. A session's bit is
 * 1 << its pid: publishers come first, then consumers. What stands in one atomic { } happens at
 * one moment; before and after it every other session may act. There is no polling here: only the
 * bell, and the list of transactions in flight, wake a consumer.
 */

#ifndef PUBLISHERS
#define PUBLISHERS 2
#endif
#ifndef CONSUMERS
#define CONSUMERS 2
#endif
#ifndef MESSAGES
#define MESSAGES 1              /* of the first publisher, in one transaction or in several */
#endif
#ifndef OTHERS_MESSAGES
#define OTHERS_MESSAGES MESSAGES /* of every other one; not more than that */
#endif
#ifndef CONSUMER_DEATHS
#define CONSUMER_DEATHS 1       /* in one run, at most, of all consumers together */
#endif
#ifndef PUBLISHER_DEATHS
#define PUBLISHER_DEATHS 1
#endif

#if PUBLISHERS * MESSAGES > 8 || PUBLISHERS + CONSUMERS > 5
#error "a set is a byte"
#endif

#ifdef VARIANT_STRICT_WATCHES
#define VARIANT_STRICT
#endif
#ifdef VARIANT_FLAG_FRESH
#define VARIANT_FLAG_IN_TABLE
#endif

#define ME              (1 << _pid)
#define ALL_PUBLISHERS  ((1 << PUBLISHERS) - 1)
#define ALL_CONSUMERS   (((1 << CONSUMERS) - 1) << PUBLISHERS)

/* ---------------------------------------------------------------- what PostgreSQL knows -------- */

/* The bell: one advisory lock key, session level. The sessions that hold it, by mode. */
byte X;                         /* ExclusiveLock */
byte S;                         /* ShareLock */

/* A try never waits. It fails if another session holds a conflicting lock, and also if one is
 * queued for: LockAcquireExtended() tests the waitMask first. */
#define X_IS_FREE  (((X | S) & ~ME) == 0)
#ifdef VARIANT_STRANGER_WAITS
bool x_wanted;
#define S_IS_FREE  ((X & ~ME) == 0 && !x_wanted)
#else
#define S_IS_FREE  ((X & ~ME) == 0)
#endif

/* Transactions. */
byte in_progress;               /* have an xid, and stand in the ProcArray */
byte publishing;                /* pg_locks shows RowExclusiveLock on the outbox, and an xid */
byte committed;                 /* their messages are visible to every new snapshot */

byte flags;                     /* VARIANT_FLAG_IN_TABLE: the rows that say "I wait" */

/* NOTIFY, for each session: on its way since the commit, and what it has heard but not handled. */
byte listening;
byte in_transit;
byte heard;

/* ---------------------------------------------------------------- what only the model knows ---- */

byte got[CONSUMERS];            /* the transactions whose messages this group has */
byte asleep;
byte publishers_left = PUBLISHERS;
byte consumer_deaths = CONSUMER_DEATHS;   /* that may still happen */
byte publisher_deaths = PUBLISHER_DEATHS;

#define MINE  got[_pid - PUBLISHERS]

#ifdef VARIANT_STRICT
/* A strict group does not get a message while one with a lower id may still appear. elder[t]: the
 * transactions that drew an id before t did and were still publishing then. Found by pg_locks, as
 * in _advance_watermark(). */
byte elder[8];
#define BACK(t)   (((elder[t] & publishing) != 0) << t)
#define READABLE  (committed & ~(BACK(0) | BACK(1) | BACK(2) | BACK(3) | BACK(4) | BACK(5) | \
                                 BACK(6) | BACK(7)))
#else
#define READABLE  committed
#endif

#define NEWS  (READABLE & ~MINE)

/* ---------------------------------------------------------------- publishers ------------------- */

#ifdef VARIANT_LOOK_BEFORE_XID      /* as from a BEFORE trigger */
#define FIRST         look
#define AFTER_LOOK    insert
#define AFTER_INSERT  ending
#else
#define FIRST         insert
#define AFTER_LOOK    ending
#define AFTER_INSERT  look
#endif

#ifdef VARIANT_FLAG_FRESH
#define FRESH  true
#else
#define FRESH  (left > 1)       /* with no other statement to come it makes no difference */
#endif

#ifdef REACH_PUBLISHER_DEATH
#define PLANTED_IN_DEATH  assert(false);
#elif defined(REACH_DEATH_WITHIN_LOOK)
#define PLANTED_IN_DEATH  assert(((X | S) & ME) == 0);
#else
#define PLANTED_IN_DEATH
#endif

/* The session ends before its commit: the transaction is aborted, and its locks are released. */
#define PUBLISHER_MAY_DIE \
    atomic { publisher_deaths > 0 -> \
        printf("publisher %d dies\n", _pid); \
        PLANTED_IN_DEATH \
        publisher_deaths--; X = X & ~ME; S = S & ~ME; in_progress = in_progress & ~t; goto ended }

active [PUBLISHERS] proctype Publisher()
{
    byte left = (_pid == 0 -> MESSAGES : OTHERS_MESSAGES);  /* messages not yet inserted */
    byte n;                     /* transactions so far that had an xid */
    byte t;                     /* the bit of the one at hand */
    bool fresh;                 /* READ COMMITTED: each statement gets a snapshot of its own */
    byte snapshot;              /* of the flags; locks are not read through it */
    bool second;                /* round of the look */
    bool ring;                  /* NOTIFY is queued in the transaction */

begin:
    /* BEGIN, and a snapshot. At REPEATABLE READ and SERIALIZABLE it is that of the first statement,
     * and serves to the end; at READ COMMITTED it is that of the INSERT. Even that may be old when
     * the xid is drawn: an INSERT locks the outbox, takes its snapshot, and draws the xid with its
     * first row. The list names xids, so until then the transaction cannot be seen there. */
    atomic {
        t = 1 << (_pid * MESSAGES + n);
        snapshot = flags;
        if
#if !defined(ISOLATION) || ISOLATION == 1
        :: fresh = FRESH; printf("publisher %d begins, READ COMMITTED\n", _pid)
#endif
#if !defined(ISOLATION) || ISOLATION == 2
        :: printf("publisher %d begins, REPEATABLE READ\n", _pid)
#endif
#if !defined(ISOLATION) || ISOLATION == 3
        :: printf("publisher %d begins, SERIALIZABLE\n", _pid)
#endif
        fi;
        goto FIRST
    }

insert:
    /* The row. With the first one of a transaction comes the xid. */
    if
    :: atomic {
        if
        :: (publishing & t) == 0 ->
#ifdef VARIANT_STRICT
            elder[_pid * MESSAGES + n] = publishing;
#endif
            n++
        :: else
        fi;
        in_progress = in_progress | t; publishing = publishing | t; left--;
        printf("publisher %d inserts\n", _pid);
        goto AFTER_INSERT }
    :: PUBLISHER_MAY_DIE
    fi;

look:
    /* The AFTER trigger looks at the bell, in one expression: no cancel comes between a try and its
     * release. But other sessions do. */
#ifdef VARIANT_FLAG_IN_TABLE
    atomic {
#ifdef VARIANT_FLAG_FRESH
        /* By a query in a VOLATILE function: at READ COMMITTED it has a snapshot of its own. */
        if
        :: fresh -> snapshot = flags
        :: else
        fi;
#endif
        ring = ring || snapshot != 0;
        printf("publisher %d reads the flags: %d\n", _pid, snapshot);
        goto AFTER_LOOK
    }
#endif

try_X:
    if
    :: atomic { X_IS_FREE -> X = X | ME; printf("publisher %d gets X\n", _pid) }
    :: atomic { !X_IS_FREE ->
        printf("publisher %d does not get X\n", _pid);
#if defined(VARIANT_X_ONCE)
        goto AFTER_LOOK         /* "so no consumer waits" */
#elif defined(VARIANT_SIMPLE_LOOK)
        ring = true;            /* correct, but it rings for other publishers' looks, too */
        goto AFTER_LOOK
#else
        if
        :: !second -> second = true; goto try_X
        :: else -> second = false; goto try_S
        fi
#endif
        }
    :: PUBLISHER_MAY_DIE
    fi;
    if
    :: atomic { X = X & ~ME; second = false;
        printf("publisher %d lets X go: no consumer waits\n", _pid);
        goto AFTER_LOOK }
#ifdef VARIANT_CANCEL_BETWEEN
    :: atomic { in_progress = in_progress & ~t;
        printf("publisher %d is cancelled; its session keeps X\n", _pid);
        goto ended }
#endif
    :: PUBLISHER_MAY_DIE
    fi;

try_S:
    if
    :: atomic { S_IS_FREE -> S = S | ME; printf("publisher %d gets S\n", _pid) }
    :: atomic { !S_IS_FREE ->
        printf("publisher %d does not get S\n", _pid);
#ifdef REACH_SHORTCUT
        assert(false);
#endif
#ifdef VARIANT_SHORTCUT
        /* "A session holds X at this very moment, so no other can hold S": wrong if a stranger only
         * queues for it. */
        goto AFTER_LOOK
#else
        goto pg_locks
#endif
        }
    :: PUBLISHER_MAY_DIE
    fi;
    if
    :: atomic { S = S & ~ME; ring = true;
        printf("publisher %d lets S go: a consumer waits, NOTIFY\n", _pid);
#ifdef REACH_RING
        assert(false);
#endif
        goto AFTER_LOOK }
    :: PUBLISHER_MAY_DIE
    fi;

pg_locks:
    /* In doubt, at last, look up the sessions that hold the key in shared mode. */
    if
    :: atomic { ring = ring || (S & ~ME) != 0;
        printf("publisher %d looks into pg_locks: %d\n", _pid, S);
        goto AFTER_LOOK }
    :: PUBLISHER_MAY_DIE
    fi;

ending:
    /* The transaction stays open as long as it likes, publishes again, or ends. */
    if
    :: atomic { left > 0 ->
        if
        :: fresh -> snapshot = flags
        :: else
        fi;
        fresh = fresh & FRESH;
        goto FIRST }
#ifdef VARIANT_LOCKS_GO_FIRST
    :: atomic { publishing = publishing & ~t; printf("publisher %d's locks are gone\n", _pid) }
#else
    :: true
#endif
#ifdef VARIANT_NOTIFY_TOO_EARLY
    :: atomic { ring -> ring = false; in_transit = in_transit | listening;
        printf("publisher %d's NOTIFY goes out\n", _pid);
        goto ending }
#endif
    :: atomic { in_progress = in_progress & ~t;
        /* ROLLBACK, or a COMMIT that fails, as at SERIALIZABLE: row and NOTIFY vanish. */
        printf("publisher %d rolls back\n", _pid);
#ifdef REACH_ROLLBACK
        assert(!ring);
#endif
        goto ended }
    :: PUBLISHER_MAY_DIE
    fi;

commit:
    /* It leaves the ProcArray: every new snapshot sees its rows. Its NOTIFY, if any, stands in the
     * queue already, and now counts, for every session that listens. */
    atomic { in_progress = in_progress & ~t; committed = committed | t;
        printf("publisher %d's commit is visible\n", _pid);
        if
        :: ring -> in_transit = in_transit | listening
        :: else
        fi };

ended:
    /* Only then are the locks released, and pg_locks no longer shows it. */
    atomic { publishing = publishing & ~t;
        printf("publisher %d's transaction and its locks are gone\n", _pid);
        assert(((X | S) & ME) == 0);
        t = 0; fresh = false; snapshot = 0; second = false; ring = false;
        if
        :: left == 0 -> n = 0; publishers_left--
        :: else -> goto begin
        fi }
}

/* ---------------------------------------------------------------- consumers -------------------- */

#ifdef REACH_CONSUMER_DEATH
#define PLANTED_IN_ITS_DEATH  assert((S & ME) == 0);
#else
#define PLANTED_IN_ITS_DEATH
#endif

/* The listening session ends: its lock goes, its LISTEN, and what it has not heard yet. The
 * consumer, or the next one of its group, starts again. */
#define CONSUMER_MAY_DIE \
    atomic { consumer_deaths > 0 -> \
        printf("consumer %d dies\n", _pid); \
        PLANTED_IN_ITS_DEATH \
        consumer_deaths--; S = S & ~ME; listening = listening & ~ME; \
        in_transit = in_transit & ~ME; heard = heard & ~ME; asleep = asleep & ~ME; list = 0; \
        goto start }

#define LISTEN  atomic { listening = listening | ME; printf("consumer %d LISTENs\n", _pid) }

/* What was heard is forgotten right before the snapshot that makes it needless, never after. */
#ifdef VARIANT_FORGET_LATE
#define FORGET
#define FORGET_LATE  atomic { heard = heard & ~ME };
#else
#define FORGET       heard = heard & ~ME;
#define FORGET_LATE
#endif

#define TAKE  MINE = MINE | READABLE; printf("consumer %d reads something\n", _pid)

active [CONSUMERS] proctype Consumer()
{
    byte list;                  /* transactions to watch */

start:
#ifndef VARIANT_LISTEN_AFTER_READ
    LISTEN;
#endif
#ifdef VARIANT_FORGETS_TO_REARM
    if                          /* it believes that it is armed, but that was another session */
    :: consumer_deaths < CONSUMER_DEATHS -> goto note
    :: else
    fi;
#endif

awake:
    if
    :: atomic { FORGET
        if
        :: NEWS != 0 -> TAKE; goto awake
        :: else -> printf("consumer %d reads nothing\n", _pid)
        fi }
    :: CONSUMER_MAY_DIE
    fi;
    FORGET_LATE

arm:
    /* (1) pg_try_advisory_lock_shared(), on the session that listens. Not free: a publisher looks
     * just now. The consumer reads again after a short while, and does not wait for the lock. */
    if
#ifdef VARIANT_FLAG_IN_TABLE
    :: atomic { flags = flags | ME; printf("consumer %d sets its flag\n", _pid) }
#else
    :: atomic { S_IS_FREE -> S = S | ME; printf("consumer %d arms\n", _pid) }
    :: atomic { !S_IS_FREE -> printf("consumer %d cannot arm\n", _pid);
#ifdef REACH_CANNOT_ARM
        assert(false);
#endif
        goto awake }
#endif
    :: CONSUMER_MAY_DIE
    fi;
#if defined(VARIANT_READ_BEFORE_ARM)
    goto fall_asleep;
#elif defined(VARIANT_PLAIN_LIST_AFTER_READ)
    goto read;
#endif

note:
    /* (2) Which transactions are publishing? */
    if
    :: atomic {
#ifndef VARIANT_NO_LIST
        list = publishing;
#endif
        printf("consumer %d notes those in flight: %d\n", _pid, list) }
    :: CONSUMER_MAY_DIE
    fi;
#ifdef VARIANT_PLAIN_LIST_AFTER_READ
    goto decide;
#endif

read:
    /* (3) It reads again, with a fresh snapshot. */
    if
    :: atomic { FORGET
        if
        :: NEWS != 0 -> TAKE; goto disarm
        :: else -> printf("consumer %d reads nothing\n", _pid)
        fi;
#ifdef VARIANT_STRICT_WATCHES
        list = list | publishing;   /* those for which this very read held back */
#endif
#if !defined(VARIANT_PLAIN_LIST_AFTER_READ) && !defined(VARIANT_FORGET_LATE)
        goto decide
#endif
        }
    :: CONSUMER_MAY_DIE
    fi;
    FORGET_LATE
#ifdef VARIANT_PLAIN_LIST_AFTER_READ
    goto note;
#endif

decide:
    if
    :: list == 0 -> goto fall_asleep
    :: else
    fi;

watch:
    /* It watches the transactions on the list, and no others. If one is over, it strikes it off,
     * then reads. */
    if
    :: atomic { (heard & ME) != 0 -> printf("consumer %d hears a NOTIFY\n", _pid); goto disarm }
#ifdef VARIANT_STRICT_WATCHES
    :: atomic { (list & ~publishing) != 0 -> list = list & publishing;
#else
    :: atomic { (list & ~in_progress) != 0 -> list = list & in_progress;
#endif
        printf("consumer %d sees that one is over; left to watch: %d\n", _pid, list);
#if defined(REACH_WATCH)
        assert(false);
#elif defined(REACH_FOUND_BY_WATCHING)
        assert(NEWS == 0 || ((heard | in_transit) & ME) != 0);
#endif
#ifdef VARIANT_STRIKE_AFTER_READ
        goto decide         /* it read first, and looked then */
#else
        goto read
#endif
        }
    :: CONSUMER_MAY_DIE
    fi;

fall_asleep:
#ifdef VARIANT_LISTEN_AFTER_READ
    LISTEN;
#endif
    atomic { asleep = asleep | ME; printf("consumer %d sleeps\n", _pid);
#ifdef REACH_SLEEP
        assert(false);
#endif
        };

end_asleep:
    if
    :: atomic { (heard & ME) != 0 -> asleep = asleep & ~ME;
        printf("consumer %d hears a NOTIFY\n", _pid);
#if defined(REACH_WOKEN)
        assert(NEWS == 0);
#elif defined(REACH_WOKEN_IN_VAIN)
        assert(NEWS != 0);
#endif
        }
    :: CONSUMER_MAY_DIE
    fi;

disarm:
    /* pg_advisory_unlock_shared(), before it drains the outbox. */
    if
    :: atomic { S = S & ~ME; flags = flags & ~ME; list = 0;
        printf("consumer %d disarms\n", _pid);
        goto awake }
    :: CONSUMER_MAY_DIE
    fi
}

/* ---------------------------------------------------------------- the rest --------------------- */

#define DELIVER_TO(session) \
    atomic { (in_transit & (1 << (session))) != 0 -> \
        in_transit = in_transit & ~(1 << (session)); heard = heard | (1 << (session)) }

/* The listening backends are signalled after the commit; each hears at some later moment. */
active proctype Delivery()
{
end_delivery:
    do
    :: DELIVER_TO(PUBLISHERS)
#if CONSUMERS > 1
    :: DELIVER_TO(PUBLISHERS + 1)
#endif
#if CONSUMERS > 2
    :: DELIVER_TO(PUBLISHERS + 2)
#endif
    od
}

/* The property. Once the publishers are done and every consumer sleeps with nothing left to hear,
 * nothing can wake a consumer any more: each group must have every committed message by then, and
 * the bell must be armed by all that sleep, and held by no publisher. */
#define QUIET  (publishers_left == 0 && asleep == ALL_CONSUMERS && (in_transit | heard) == 0)

active proctype Check()
{
    byte group;

end_check:
    do
    :: atomic { QUIET ->
        do
        :: group < CONSUMERS -> assert(got[group] == committed); group++
        :: else -> group = 0; break
        od;
#ifndef VARIANT_FLAG_IN_TABLE
        assert((S & ALL_CONSUMERS) == ALL_CONSUMERS);
#endif
        assert(((X | S) & ALL_PUBLISHERS) == 0 && (in_progress | publishing) == 0);
#ifdef REACH_END
        assert(consumer_deaths + publisher_deaths > 0 || committed == 0);
#endif
        }
    od
}

#if defined(VARIANT_STRANGER_WAITS) || defined(VARIANT_STRANGER_TRIES)
/* Any session can take advisory locks: one that has nothing to do with all this takes the key. */
active proctype Stranger()
{
#ifdef VARIANT_STRANGER_WAITS
    x_wanted = true;            /* pg_advisory_lock(): queued until it gets it */
end_stranger:
    atomic { X_IS_FREE -> x_wanted = false; X = X | ME; printf("the stranger gets X\n") };
    atomic { X = X & ~ME; printf("the stranger lets X go\n") }
#else
    if
    :: atomic { X_IS_FREE -> X = X | ME; printf("the stranger gets X\n") }
    :: atomic { S_IS_FREE -> S = S | ME; printf("the stranger gets S\n") }
    fi;
    atomic { X = X & ~ME; S = S & ~ME; printf("the stranger lets go\n") }
#endif
}
#endif
