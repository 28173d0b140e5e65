// SPDX-License-Identifier: AGPL-3.0-only
import { prepareDevices } from './prepare.ts'
import type { Api } from './prepare.ts'
import type { Scenario } from './scenario.ts'
import { Senders } from './senders.ts'
import type { Tally } from './senders.ts'

/** Where progress is written: a terminal gets one line that changes, anything else a line every 10 s. */
export type Output = { write(text: string): unknown; isTTY?: boolean; columns?: number }

export type SimulateOptions = {
  api: Api
  mqtt: { host: string; port: number }
  scenario: Scenario
  count: number
  /** Messages per second of each device. */
  ratePerS: number
  /** Absent: until the signal. */
  durationMs?: number
  signal: AbortSignal
  output: Output
}

export type Summary = Pick<Tally, 'sent' | 'acknowledged' | 'errors' | 'skipped' | 'lastError'> & { devices: number; seconds: number }

const terminalMs = 1000
const plainMs = 10_000

/**
 * Sends living example data over real MQTT until the time is over or the signal comes.
 *
 * @throws {StartError} when the devices could not be made
 */
export async function simulate(options: SimulateOptions): Promise<Summary> {
  const { api, mqtt, scenario, count, ratePerS, durationMs, signal, output } = options
  output.write(`Preparing ${count} devices of scenario ${scenario.name} at ${api.url}\n`)
  const prepared = await prepareDevices(api, scenario, count)
  const startTs = Date.now()
  const devices = prepared.map((device, index) => ({ ...device, unit: scenario.createUnit({ index, startTs }) }))
  const senders = new Senders({ ...mqtt, scenario, devices, intervalMs: 1000 / ratePerS })
  const startedAt = performance.now()
  const seconds = () => (performance.now() - startedAt) / 1000
  senders.start()
  const stopProgress = showProgress(senders.tally, count, output)
  await waitFor(durationMs, signal)
  const sendingS = seconds()
  await senders.stop()
  stopProgress()
  const { sent, acknowledged, errors, skipped, lastError } = senders.tally
  output.write(`${describe(senders.tally, acknowledged / sendingS)} · ${sendingS.toFixed(1)} s\n`)
  if (lastError) output.write(`last error: ${lastError}\n`)
  return { devices: count, seconds: sendingS, sent, acknowledged, errors, skipped, lastError }
}

/** Whether everything that was sent is stored. */
export function isClean(summary: Summary): boolean {
  return summary.sent > 0 && summary.acknowledged === summary.sent && summary.errors === 0
}

function showProgress(tally: Tally, count: number, output: Output): () => void {
  const periodMs = output.isTTY ? terminalMs : plainMs
  let acknowledged = 0
  const timer = setInterval(() => {
    const rate = ((tally.acknowledged - acknowledged) * 1000) / periodMs
    acknowledged = tally.acknowledged
    const line = `${tally.connected}/${count} connected · ${describe(tally, rate)}`
    // Cut to the width: a wrapped line could not be written over.
    output.write(output.isTTY ? `\r\u001b[K${line.slice(0, (output.columns ?? 80) - 1)}` : `${line}\n`)
  }, periodMs)
  return () => {
    clearInterval(timer)
    if (output.isTTY) output.write('\r\u001b[K')
  }
}

function describe(tally: Tally, rate: number): string {
  const { sent, acknowledged, errors, skipped } = tally
  const number = (value: number) => Math.round(value).toLocaleString('en')
  return `sent ${number(sent)} · acknowledged ${number(acknowledged)} · ${number(rate)}/s · errors ${number(errors)}${skipped ? ` · skipped ${number(skipped)}` : ''}`
}

function waitFor(durationMs: number | undefined, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve()
    const timer = durationMs === undefined ? undefined : setTimeout(resolve, durationMs)
    signal.addEventListener('abort', () => {
      clearTimeout(timer)
      resolve()
    })
  })
}
