// pg-boss, on pg.
//
// What makes it fast, by its documentation: insert() of an array ("Jobs": creates many in one statement);
// work() with a batchSize and burstWhenBatchFull, which fetches again at once while batches are full, and
// localConcurrency ("Workers"); orderByCreatedOn: false "for improved performance when order doesn't
// matter" ("Jobs"), and priority: false likewise. For the wake-up a queue with notify, and
// useListenNotify ("Low-latency dispatch with LISTEN/NOTIFY").

import pg from 'pg'
import { PgBoss } from 'pg-boss'

import { committed, main } from './program.mjs'

const QUEUE = 'orders'
const BATCH = 1000
const WORKERS = 2 // in a process: one fetches while the other handles

async function start (address, settings = {}) {
  const boss = new PgBoss({ connectionString: address, ...settings })
  boss.on('error', console.error)
  await boss.start()
  return boss
}

await main({
  async prepare (address) {
    const boss = await start(address)
    await boss.createQueue(QUEUE)
    await boss.stop({ graceful: false })
  },

  async publisher (address) {
    const boss = await start(address, { supervise: false, schedule: false })
    const client = new pg.Client({ connectionString: address })
    await client.connect()
    const db = { executeSql: (text, values) => client.query(text, values) }
    return {
      batch: (payloads) => boss.insert(QUEUE, payloads.map((data) => ({ data }))),
      single: (data) => boss.send(QUEUE, data),
      async timed (data) {
        await client.query('BEGIN')
        await boss.send(QUEUE, data, { db })
        return await committed(client)
      }
    }
  },

  async consumer (address, measure, concurrency, handler) {
    const waking = measure === 'wake'
    const boss = await start(address, { useListenNotify: waking })
    if (waking) await boss.updateQueue(QUEUE, { notify: true })
    const batchSize = concurrency > 1 ? concurrency / WORKERS : BATCH
    const options = {
      batchSize,
      burstWhenBatchFull: true,
      localConcurrency: WORKERS,
      orderByCreatedOn: false,
      pollingIntervalSeconds: 0.5,
      priority: false
    }
    await boss.work(QUEUE, options, async (jobs) => {
      if (concurrency > 1) {
        await Promise.all(jobs.map((job) => handler(job.data)))
      } else {
        for (const job of jobs) await handler(job.data)
      }
    })
    return () => boss.offWork(QUEUE) // resolved once the last batch is completed
  }
})
