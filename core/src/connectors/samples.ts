// SPDX-License-Identifier: AGPL-3.0-only
import { isUtf8 } from 'node:buffer'
import type { Sample } from './schemas.ts'

type Kept = Pick<Sample, 'topic' | 'qos' | 'retain' | 'size'> & { payload: Buffer; at: number }

const kept = 5
/** As much as a preview needs of a usual message. */
const cutBytes = 16_384

/** The last messages of a broker, for people who write a mapping. In memory only. */
export class Samples {
  readonly #kept: Kept[] = []

  get count(): number {
    return this.#kept.length
  }

  add({ payload, ...rest }: Omit<Kept, 'size'>): void {
    this.#kept.unshift({ ...rest, payload: Buffer.from(payload.subarray(0, cutBytes)), size: payload.length })
    this.#kept.length = Math.min(this.#kept.length, kept)
  }

  /** Newest first. */
  list(): Sample[] {
    return this.#kept.map(({ payload, at, ...rest }) => {
      const isText = isUtf8(payload)
      return {
        ...rest,
        payload: payload.toString(isText ? 'utf8' : 'base64'),
        encoding: isText ? 'text' : 'base64',
        isCut: rest.size > payload.length,
        at: new Date(at).toISOString(),
      }
    })
  }
}
