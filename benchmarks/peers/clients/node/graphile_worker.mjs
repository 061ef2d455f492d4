// Graphile Worker, on pg.
//
// What makes it fast, by its page "Performance": addJobs, one call for a batch; a localQueue, which is
// filled at once, of 500 there, and of 1,000 here, which was faster; completeJobBatchDelay 0, with which
// completions within a turn of the event loop are one statement; concurrentJobs 24 and maxPoolSize 25. Jobs
// wake it by LISTEN. NO_LOG_SUCCESS is set, as in
// its own test of performance.

import { Logger, makeWorkerUtils, run } from 'graphile-worker'
import pg from 'pg'

import { committed, main } from './program.mjs'

const TASK = 'orders'
const CONCURRENT = 24
const QUEUE = 1000

const logger = new Logger(() => (level, message) => {
  if (level === 'error') console.error(message)
})

await main({
  async prepare (address) {
    const utils = await makeWorkerUtils({ connectionString: address, logger })
    await utils.migrate()
    await utils.release()
  },

  async publisher (address) {
    const utils = await makeWorkerUtils({ connectionString: address, logger })
    const client = new pg.Client({ connectionString: address })
    await client.connect()
    return {
      batch: (payloads) => utils.addJobs(payloads.map((payload) => ({ identifier: TASK, payload }))),
      single: (payload) => utils.addJob(TASK, payload),
      async timed (payload) {
        await client.query('BEGIN')
        await client.query('SELECT graphile_worker.add_job($1, $2::json)', [TASK, payload])
        return await committed(client)
      }
    }
  },

  async consumer (address, _measure, concurrency, handler) {
    const concurrentJobs = concurrency > 1 ? concurrency : CONCURRENT
    const runner = await run({
      preset: {
        worker: {
          connectionString: address,
          completeJobBatchDelay: 0,
          concurrentJobs,
          failJobBatchDelay: 0,
          localQueue: { size: QUEUE },
          logger,
          maxPoolSize: CONCURRENT + 1
        }
      },
      noHandleSignals: true,
      taskList: { [TASK]: handler }
    })
    return () => runner.stop() // resolved once all completions are committed
  }
})
