// SPDX-License-Identifier: AGPL-3.0-only
import { isClean } from './checker.ts'
import { protocolOf } from './load-devices.ts'
import { createRandom, monotonicMs, signalLater } from './processes.ts'
import { printRound } from './report.ts'
import type { LoadSession } from './session.ts'

/** MQTT 5: server shutting down. */
const shuttingDown = 0x8b
const stopWithinMs = 10_000

/** SIGTERM under load [F3]: everything accepted is answered, every MQTT 5 session is told, the exit code is 0. */
export async function stopRounds(session: LoadSession, rounds: number, seed: number): Promise<string[]> {
  const problems: string[] = []
  for (let round = 1; round <= rounds; round++) {
    const random = createRandom(seed + round)
    const { installation } = session
    const load = await session.startLoad(seed + round)
    // All devices are connected by then, so that each of MQTT 5 has a session to be told in.
    const stoppedAt = await signalLater([installation.pid], 'TERM', 1000 + random() * 1500)
    const exit = await installation.exited()
    const stopMs = monotonicMs() - stoppedAt
    const { readyAt } = await installation.start()
    await load.ackedAfter(readyAt)
    const { ledger, verdict, problems: found } = await session.check(await load.stop())
    const mqtt5 = ledger.header.devices.map((_, index) => index).filter((index) => protocolOf(index) === 5)
    const told = new Set(ledger.disconnects.filter(({ rc, at }) => rc === shuttingDown && at < readyAt).map(({ device }) => device))
    const untold = mqtt5.filter((index) => !told.has(index))
    const open = ledger.messages.filter((message) => message.state === 'info').length
    printRound(
      `F3 ${round}`,
      verdict,
      undefined,
      `exit ${exit.code} after ${(stopMs / 1000).toFixed(2)} s, 0x8B to ${told.size} of ${mqtt5.length} MQTT 5 sessions, ${open} messages left open`,
    )
    problems.push(...found)
    if (exit.code !== 0) problems.push(`exit code ${exit.code}, signal ${exit.signal}`)
    if (stopMs > stopWithinMs) problems.push(`the stop took ${Math.round(stopMs)} ms`)
    if (untold.length > 0) problems.push(`no DISCONNECT 0x8B to the MQTT 5 devices ${untold.join(', ')}`)
    if (!isClean(verdict)) problems.push(`round ${round} is not clean`)
  }
  return problems
}
