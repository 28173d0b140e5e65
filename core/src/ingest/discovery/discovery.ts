// SPDX-License-Identifier: AGPL-3.0-only
import type { Attributes } from '../../attributes/attributes.ts'
import { parseExactly } from '../../telemetry/values.ts'
import type { Pipeline } from '../pipeline.ts'
import type { Device } from '../registry.ts'
import { served } from '../requests.ts'
import type { DeviceRequest, RequestHandler } from '../requests.ts'
import type { Outcome } from '../uplink.ts'
import { formatHint, parseConfig, parseConfigTopic, parseHint } from './discovery-config.ts'
import type { ConfigTopic, Hint } from './discovery-config.ts'

export type DiscoveryParts = { pipeline: Pipeline; attributes: Attributes }

/** Client attributes that hold what a device has announced, by the key of its values. */
const prefix = 'model.'
const maxHints = 200

/**
 * Simple devices that announce themselves as Home Assistant expects it: what they announce is kept as client attributes
 * `model.<key>`, what comes on the topics they name is telemetry. Everything else they publish is taken and left alone.
 */
export class Discovery {
  readonly #parts: DiscoveryParts
  readonly #hints = new WeakMap<Device, Promise<Map<string, Hint>>>()

  constructor(parts: DiscoveryParts) {
    this.#parts = parts
  }

  readonly serve: RequestHandler = async (request) => {
    const hints = await this.#hintsOf(request.device)
    const config = parseConfigTopic(request.topic)
    if (config) return this.#learn(request, config, hints)
    const wanted = [...hints.values()].filter(({ topic }) => topic === request.topic)
    return wanted.length === 0 ? served : this.#take(request, wanted)
  }

  /** After a restart from the attributes; a device need not announce itself again. */
  #hintsOf(device: Device): Promise<Map<string, Hint>> {
    const known = this.#hints.get(device)
    if (known) return known
    const loading = this.#load(device)
    this.#hints.set(device, loading)
    loading.catch(() => this.#hints.delete(device))
    return loading
  }

  async #load(device: Device): Promise<Map<string, Hint>> {
    const hints = new Map<string, Hint>()
    for await (const { key, kind, value } of this.#parts.attributes.listAll(scopeOf(device), device.id, 'client')) {
      const hint = key.startsWith(prefix) && kind === 'json' ? parseHint(key.slice(prefix.length), value) : undefined
      if (hint && hints.size < maxHints) hints.set(hint.key, hint)
    }
    return hints
  }

  async #learn(request: DeviceRequest, config: ConfigTopic, hints: Map<string, Hint>): Promise<Outcome> {
    const { device, receivedAt } = request
    // An empty announcement takes the entity away.
    if (request.payload.length === 0) return this.#forget(device, config, hints)
    const hint = parseConfig(request.payload, config)
    if (hint === undefined) return served
    if ('code' in hint) return { status: 'refused', reject: hint }
    const before = [...hints.values()].find(({ id }) => id === hint.id)
    hint.key = before?.key ?? chooseKey(config, hints)
    if (!hints.has(hint.key) && hints.size >= maxHints) {
      return { status: 'refused', reject: { code: 'TOO_MANY_KEYS', detail: `a device announces at most ${maxHints} values` } }
    }
    hints.set(hint.key, hint)
    const point = { kind: 'json', value: formatHint(hint), key: prefix + hint.key, ts: receivedAt } as const
    return new Promise((resolve) => this.#parts.pipeline.write(uplinkOf(request, 'attributes', request.payload), [point], [], resolve))
  }

  async #forget(device: Device, config: ConfigTopic, hints: Map<string, Hint>): Promise<Outcome> {
    const key = [...hints.values()].find(({ id }) => id === config.id)?.key
    if (key === undefined) return served
    await this.#parts.attributes.change(scopeOf(device), device.id, 'client', { deleted: [prefix + key] })
    hints.delete(key)
    return served
  }

  /** A state is telemetry under the keys it was announced for, by the rules all telemetry has. */
  #take(request: DeviceRequest, hints: readonly Hint[]): Outcome | Promise<Outcome> {
    const text = request.payload.toString()
    const members: string[] = []
    for (const hint of hints) {
      const value = readState(text, hint)
      if (value !== undefined) members.push(`${JSON.stringify(hint.key)}:${value}`)
    }
    if (members.length === 0) {
      return { status: 'refused', reject: { code: 'SHAPE_INVALID', detail: 'the state does not hold what was announced' } }
    }
    const uplink = uplinkOf(request, 'telemetry', Buffer.from(`{${members.join(',')}}`))
    return new Promise((resolve) => this.#parts.pipeline.accept(uplink, resolve))
  }
}

/** The value of a state as JSON text; undefined when it is not in there. */
function readState(text: string, { path, on, off }: Hint): string | undefined {
  const state = parseState(text, path.length === 0)
  let value: unknown = state
  for (const name of path) {
    value = typeof value === 'object' && value !== null && Object.hasOwn(value, name) ? (value as Record<string, unknown>)[name] : undefined
  }
  if (value === undefined) return undefined
  if (on !== undefined && (value === on || value === off)) return String(value === on)
  return JSON.stringify(value)
}

/** JSON, or else a bare text where that is what a state is. */
function parseState(text: string, mayBeBare: boolean): unknown {
  try {
    return parseExactly(text)
  } catch {
    return mayBeBare ? text.trim().toWellFormed() : undefined
  }
}

/** The shortest end of its name that is free: two parts of a device may each have a temperature. */
function chooseKey({ id }: ConfigTopic, hints: ReadonlyMap<string, Hint>): string {
  const names = id.split('/')
  const ends = names.map((_, index) => names.slice(-index - 1).join('.'))
  return ends.find((end) => !hints.has(end)) ?? id
}

function scopeOf({ tenantId, tenantNo }: Device) {
  return { tenantId, tenantNo }
}

function uplinkOf({ device, source, receivedAt }: DeviceRequest, kind: 'attributes' | 'telemetry', payload: Buffer) {
  return { device, kind, payload, transport: 'mqtt', source, receivedAt } as const
}
