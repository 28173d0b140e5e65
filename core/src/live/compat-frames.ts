// SPDX-License-Identifier: AGPL-3.0-only

/** Values by key as [ts, JSON text], the newest first. */
export type CompatValues = Map<string, (readonly [ts: number, text: string])[]>

/** One frame to a ThingsBoard-style client [W-4]; `update` says whose, when a later one may replace it. */
export type CompatFrame = { id: number; values: CompatValues; update?: object }

/** Codes of [W-5]. */
export const compatErrors = { internal: 1, badRequest: 2, forbidden: 3 } as const

/** Where frames go: a socket, with the bytes it has not yet got rid of. */
type Outlet = { readonly bufferedAmount: number; send(text: string): void }

/** [W-6] */
const maxQueued = 1000
/** Above it the client is too slow, and its frames wait here. */
const slowBytes = 1_048_576

/** Frames that wait for a slow client; of what is too much only the newest value of each key is kept [W-6]. */
export class FrameQueue {
  readonly #outlet: Outlet
  #frames: CompatFrame[] = []

  constructor(outlet: Outlet) {
    this.#outlet = outlet
  }

  get length(): number {
    return this.#frames.length
  }

  push(frame: CompatFrame): void {
    this.#frames.push(frame)
    this.flush()
    if (this.#frames.length > maxQueued) this.#frames = mergeFrames(this.#frames)
  }

  /** Nothing more comes to a subscription that has ended. */
  drop(update: object): void {
    this.#frames = this.#frames.filter((frame) => frame.update !== update)
  }

  /** Sends what the socket takes. */
  flush(): void {
    let sent = 0
    while (sent < this.#frames.length && this.#outlet.bufferedAmount < slowBytes) this.#outlet.send(formatFrame(this.#frames[sent++]!))
    if (sent > 0) this.#frames.splice(0, sent)
  }
}

/** All updates of a subscription in one frame, in the place of the first; answers stay as they are. */
function mergeFrames(frames: readonly CompatFrame[]): CompatFrame[] {
  const merged = new Map<object, CompatFrame>()
  for (const frame of frames) {
    const first = merged.get(frame.update ?? frame)
    if (!first) merged.set(frame.update ?? frame, { ...frame, values: frame.update ? newestOf(frame.values) : frame.values })
    else for (const [key, values] of newestOf(frame.values)) keepNewest(first.values, key, values[0]!)
  }
  return [...merged.values()]
}

function newestOf(values: CompatValues): CompatValues {
  return new Map([...values].map(([key, list]) => [key, list.slice(0, 1)]))
}

/** Equal times: written last. What is deleted has no time, and is always news. */
export function keepNewest(values: CompatValues, key: string, value: readonly [ts: number, text: string]): void {
  const known = values.get(key)?.[0]
  if (!known || value[0] >= known[0] || value[0] === 0) values.set(key, [value])
}

/** Made as text, since integers keep digits that no JSON number of JavaScript has. */
function formatFrame({ id, values }: CompatFrame): string {
  const data: string[] = []
  const latest: string[] = []
  for (const [key, list] of values) {
    const name = JSON.stringify(key)
    data.push(`${name}:[${list.map(([ts, text]) => `[${ts},${text}]`).join(',')}]`)
    if (list.length > 0) latest.push(`${name}:${list.reduce((newest, [ts]) => Math.max(newest, ts), 0)}`)
  }
  return `{"subscriptionId":${id},"errorCode":0,"errorMsg":null,"data":{${data.join(',')}},"latestValues":{${latest.join(',')}}}`
}

export function formatError(id: number, code: number, message: string): string {
  return JSON.stringify({ subscriptionId: id, errorCode: code, errorMsg: message, data: {}, latestValues: {} })
}
