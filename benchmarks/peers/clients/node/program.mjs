// A program of the protocol that clients/program.py describes: its roles, and the tally of its handlers.

import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'

const BATCH = 1000
const WARMED = 50

/** CLOCK_MONOTONIC in nanoseconds, which all processes of a machine share. */
export const now = () => Number(process.hrtime.bigint())

const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`)

/** A message: about 120 bytes of JSON. */
function payload (number) {
  return { order: number, customer: `customer-${number % 1000}`, amount: number * 1.5, note: 'x'.repeat(60) }
}

function payloads (first, last) {
  return Array.from({ length: last - first }, (_, index) => payload(first + index))
}

/** Commit a transaction of this client; return when that was sent and when it was confirmed. */
export async function committed (client) {
  const before = now()
  await client.query('COMMIT')
  return [before, now()]
}

/**
 * Play the role that the command line names.
 *
 * peer.prepare(address); peer.publisher(address) returns { batch, single, timed };
 * peer.consumer(address, measure, concurrency, handler) returns a function that stops it, which is
 * resolved once every acknowledgement is committed.
 */
export async function main (peer) {
  const [role, address, ...rest] = process.argv.slice(2)
  if (role === 'prepare') {
    await peer.prepare(address)
    say(true)
  } else if (role === 'consume') {
    await consume(peer, address, rest[0], Number(rest[1]))
  } else {
    say(await publish(await peer.publisher(address), role, Number(rest[0])))
  }
  process.exit(0)
}

async function publish (publisher, role, messages) {
  if (role === 'slowly') {
    const times = []
    for (let number = 0; number < messages; number++) {
      await sleep(20 + Math.random() * 30)
      times.push(await publisher.timed(payload(number)))
    }
    return times
  }
  const [step, warm, publishThem] = role === 'singles'
    ? [1, payloads(0, WARMED), ([each]) => publisher.single(each)]
    : [BATCH, payloads(0, role === 'fill' ? 0 : BATCH), (each) => publisher.batch(each)]
  for (let first = 0; first < warm.length; first += step) await publishThem(warm.slice(first, first + step))
  const begun = now()
  for (let first = 0; first < messages; first += step) {
    await publishThem(payloads(first, Math.min(first + step, messages)))
  }
  return [begun, now()]
}

async function consume (peer, address, measure, concurrency) {
  const tally = { first: 0, acked: 0, handled: 0, entered: {} }
  const pass = async () => {
    tally.first ||= now()
    tally.handled++
  }
  const handlers = {
    consume_await: async () => {
      tally.first ||= now()
      await sleep(1)
      tally.handled++
    },
    wake: async (message) => {
      tally.entered[message.order] ??= now()
      tally.handled++
    }
  }
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
  say(true)
  await lines.next()
  const stop = await peer.consumer(address, measure, concurrency, handlers[measure] ?? pass)
  let told = 0
  const telling = setInterval(() => {
    if (tally.handled !== told) say(told = tally.handled)
  }, 5)
  await lines.next()
  clearInterval(telling)
  await stop()
  tally.acked = now()
  say(tally)
}
