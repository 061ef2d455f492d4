// A consumer in JavaScript, through the SQL functions. Needs `npm install`, and:
//
//     DURABLE_NOTIFY_DSN=postgresql://... node listener.mjs [topic] [group]
//
// It ends on SIGTERM and Ctrl-C, and with status 1 when a connection is lost: let whatever
// started it start it again. Nothing is lost; what it held comes back when its lease runs out.

import pg from "pg";

const [topic = "orders", group = "node"] = process.argv.slice(2);
const connectionString = process.env.DURABLE_NOTIFY_DSN;
const POLL = 30_000; // a safety net, in milliseconds

const listening = new pg.Client({ connectionString, keepAlive: true });
const working = new pg.Client({ connectionString, keepAlive: true });
for (const client of [listening, working]) {
  client.on("error", (error) => {
    console.error(`the connection was lost: ${error.message}`);
    process.exit(1);
  });
  await client.connect();
}

// What to wake when a notification arrives, or the process must stop. A notification is only a
// hint that there is something to read. One that arrives while the loop runs is recorded.
let rung = false;
let stopping = false;
let wake = () => {};
listening.on("notification", () => {
  rung = true;
  wake();
});
for (const signal of ["SIGTERM", "SIGINT"]) {
  process.once(signal, () => {
    stopping = true;
    wake();
  });
}

// LISTEN, commit, arm the topic's doorbell, then read. The first claim finds what was committed
// before that, and what is published after it rings. `late` are transactions that published before
// the doorbell was armed and have not ended. They will not ring, so poll until they have ended.
// A channel is an identifier, hence escapeIdentifier.
const { rows: [{ channel }] } = await working.query(
  "SELECT durable_notify.channel($1)", [topic]);
await listening.query(`LISTEN ${pg.escapeIdentifier(channel)}`);
while (!(await listening.query("SELECT durable_notify.arm($1) AS armed", [topic])).rows[0].armed) {
  await new Promise((resolve) => setTimeout(resolve, 10)); // a publisher was checking the doorbell
}
let { rows: [{ late }] } = await listening.query(
  "SELECT durable_notify.unnotified_transactions()::text[] AS late");
await working.query("SELECT durable_notify.subscribe($1, $2)", [group, [topic]]);

while (!stopping) {
  rung = false; // before reading: a notification from here on announces something newer
  // A claim must be alone in its transaction: no BEGIN before it.
  const { rows: messages } = await working.query(
    "SELECT token, id, payload, attempt FROM durable_notify.claim($1, $2, max_messages => 100, owner => 'node')",
    [group, [topic]]);
  if (messages.length > 0) {
    await handle(messages);
  } else {
    await sleep();
  }
}
await listening.end();
await working.end();

// The work on a batch and its acknowledgement commit together. `id` and `token` are strings,
// because JavaScript's numbers do not hold a bigint.
async function handle(messages) {
  await working.query("BEGIN");
  try {
    for (const { id, payload, attempt } of messages) {
      console.log(JSON.stringify({ id, payload, attempt })); // your work, on `working`
    }
    await working.query("SELECT durable_notify.settle($1, acked => $2)", [
      messages[0].token, // one topic was claimed, so there is one lease
      messages.map(({ id }) => id),
    ]);
    await working.query("COMMIT");
  } catch (error) {
    await working.query("ROLLBACK");
    console.error(`a batch failed, and is redelivered when its lease expires: ${error.message}`);
  }
}

// Sleep until a notification arrives, something becomes due, or POLL is over.
async function sleep() {
  const { rows: [{ due }] } = await working.query(
    "SELECT durable_notify.next_due($1, $2) AS due", [group, [topic]]);
  const poll = late.length > 0 ? 100 : POLL;
  if (late.length > 0) {
    ({ rows: [{ late }] } = await working.query(
      "SELECT durable_notify.still_running($1::xid8[])::text[] AS late", [late]));
  }
  if (rung || stopping) return;
  await new Promise((resolve) => {
    const timer = setTimeout(resolve, Math.min(poll, due === null ? poll : due * 1000 + 50));
    wake = () => {
      clearTimeout(timer);
      resolve();
    };
  });
  wake = () => {};
}
