// A listener as people have it. Prints [channel, payload], a line each.
import pg from "pg";

const client = new pg.Client({ connectionString: process.env.DATABASE_URL });
await client.connect();
client.on("notification", ({ channel, payload }) => console.log(JSON.stringify([channel, payload])));
for (const channel of process.argv.slice(2)) {
  await client.query(`LISTEN ${pg.escapeIdentifier(channel)}`);
}
console.log(JSON.stringify("listening"));
