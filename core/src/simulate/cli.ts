// SPDX-License-Identifier: AGPL-3.0-only
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { StartError, exitCodes } from '../errors.ts'
import type { Scenario } from './scenario.ts'
import { scenarios } from './scenarios.ts'
import { isClean, simulate } from './simulate.ts'
import type { Output, SimulateOptions } from './simulate.ts'

const help = `iot-pms device simulate [options]    send living example data over real MQTT

  --scenario NAME       ${scenarios.map((one) => one.name).join(', ')} (${scenarios[0]!.name})
  --count N             devices, 1 to 20000 (10)
  --rate N/s            messages of each device: N/s, N/min or N/h, at most 20/s (1/s)
  --duration T          stop after this time: 60s, 10m, 1h; without it, Ctrl-C stops
  --url URL             the server (http://localhost:8080)
  --mqtt HOST:PORT      its MQTT endpoint (the host of --url, port 1883)
  --api-key KEY         a key with the scopes device.read, device.write, device.credentials.read, product.read, product.write
  --api-key-file FILE   the same from a file

The devices are made through the API and are used again by the next run. Ends with 0 when everything sent was stored.
`

const maxRatePerS = 20

/** `iot-pms device simulate`; @returns the exit code: 0 when every message was acknowledged, 1 when not. */
export async function runSimulate(args: string[], output: Output = process.stdout): Promise<number> {
  const options = parseOptions(args)
  if (!options) {
    output.write(help)
    return 0
  }
  const abort = new AbortController()
  const stop = () => abort.abort()
  process.once('SIGINT', stop)
  process.once('SIGTERM', stop)
  try {
    return isClean(await simulate({ ...options, signal: abort.signal, output })) ? 0 : 1
  } finally {
    process.off('SIGINT', stop)
    process.off('SIGTERM', stop)
  }
}

/** @returns undefined when help was asked for. @throws {StartError} `USAGE` */
export function parseOptions(args: string[]): Omit<SimulateOptions, 'signal' | 'output'> | undefined {
  const values = parse(args)
  if (values.help) return undefined
  const url = URL.parse(values.url)
  if (!url || !['http:', 'https:'].includes(url.protocol)) throw usage(`--url ${values.url} is not an http or https address.`)
  const durationMs = values.duration === undefined ? undefined : parseDuration(values.duration)
  return {
    api: { url: url.href, apiKey: readKey(values['api-key'], values['api-key-file']) },
    mqtt: parseEndpoint(values.mqtt ?? url.hostname),
    scenario: findScenario(values.scenario),
    count: parseCount(values.count),
    ratePerS: parseRate(values.rate),
    ...(durationMs === undefined ? {} : { durationMs }),
  }
}

function parse(args: string[]) {
  try {
    return parseArgs({
      args,
      options: {
        scenario: { type: 'string', default: scenarios[0]!.name },
        count: { type: 'string', default: '10' },
        rate: { type: 'string', default: '1/s' },
        duration: { type: 'string' },
        url: { type: 'string', default: 'http://localhost:8080' },
        mqtt: { type: 'string' },
        'api-key': { type: 'string' },
        'api-key-file': { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    }).values
  } catch (error) {
    throw usage(error instanceof Error ? error.message : String(error))
  }
}

function findScenario(name: string): Scenario {
  const scenario = scenarios.find((one) => one.name === name)
  if (!scenario) throw usage(`There is no scenario ${name}: ${scenarios.map((one) => one.name).join(', ')}.`)
  return scenario
}

function parseCount(text: string): number {
  const count = Number(text)
  if (!/^\d+$/.test(text) || count < 1 || count > 20_000) throw usage(`--count ${text} is not a whole number from 1 to 20000.`)
  return count
}

function parseRate(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\/(s|min|h)$/.exec(text)
  const ratePerS = match ? Number(match[1]) / { s: 1, min: 60, h: 3600 }[match[2] as 's' | 'min' | 'h'] : 0
  const isRate = ratePerS > 0 && ratePerS <= maxRatePerS
  if (!isRate) throw usage(`--rate ${text} is not a rate such as 1/s, 30/min or 12/h, up to ${maxRatePerS}/s.`)
  return ratePerS
}

function parseDuration(text: string): number {
  const match = /^(\d+)(s|m|h)$/.exec(text)
  const ms = match ? Number(match[1]) * { s: 1000, m: 60_000, h: 3_600_000 }[match[2] as 's' | 'm' | 'h'] : 0
  // Longer than timers go.
  if (!(ms > 0) || ms > 2_147_483_647) throw usage(`--duration ${text} is not a time such as 60s, 10m or 1h, up to 596h.`)
  return ms
}

/** `host`, `host:port`, `[::1]:port` */
function parseEndpoint(text: string): { host: string; port: number } {
  const match = /^(?:\[([0-9a-f:.]+)\]|([^:[\]]+))(?::(\d+))?$/i.exec(text)
  const port = Number(match?.[3] ?? 1883)
  if (!match || port < 1 || port > 65_535) throw usage(`--mqtt ${text} is not HOST:PORT.`)
  return { host: match[1] ?? match[2]!, port }
}

function readKey(key: string | undefined, file: string | undefined): string {
  if (key !== undefined && file !== undefined) throw usage('--api-key and --api-key-file are both given: keep one of them.')
  if (key) return key
  if (!file) throw usage('--api-key is missing: make one in the dashboard under API keys.')
  try {
    return readFileSync(file, 'utf8').trim()
  } catch (error) {
    throw new StartError('USAGE', exitCodes.usage, `--api-key-file ${file} cannot be read.`, 'Name a file this user may read.', error)
  }
}

function usage(message: string): StartError {
  return new StartError('USAGE', exitCodes.usage, message, 'See: iot-pms device simulate --help')
}
