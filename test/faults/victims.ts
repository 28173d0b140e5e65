// SPDX-License-Identifier: AGPL-3.0-only
import { appendFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Reader } from './checker.ts'
import type { Installation, LoadedDevice } from './installation.ts'
import { keys, sampleJson } from './ledger.ts'

/** Devices outside the ledger, deleted in each round. */
const count = 8
/** Samples of one request; each has a value of every key. */
const samplesAtOnce = 200
const dayMs = 86_400_000

type Victim = LoadedDevice & { isDeleted: boolean }

/** Devices whose points are deleted under load; a deletion is there as a whole or not at all. */
export class Victims {
  readonly #installation: Installation
  readonly #devices: Victim[]
  /** Lines for the killer: when a deletion was asked for. */
  readonly marks: string
  #base = Date.now() - 300 * dayMs
  #isStopped = false

  private constructor(installation: Installation, devices: readonly LoadedDevice[]) {
    this.#installation = installation
    this.#devices = devices.map((device) => ({ ...device, isDeleted: false }))
    this.marks = join(installation.folder, 'deletions.log')
    writeFileSync(this.marks, '')
  }

  static async create(installation: Installation): Promise<Victims> {
    return new Victims(installation, await installation.createDevices(count, 'victim'))
  }

  /** A range of time of its own per round: nothing of an earlier round can stand in for it. */
  begin(): void {
    this.#base += dayMs
    this.#isStopped = false
    for (const device of this.#devices) device.isDeleted = false
  }

  /** Sends every second sample first, the others when those are in chunks: deletions meet both. */
  async send(half: 0 | 1): Promise<void> {
    const samples = Array.from({ length: samplesAtOnce }, (_, i) => sampleJson(this.#base, 2 * i + half))
    for (const { token } of this.#devices) {
      await this.#installation.call('POST', `/api/v1/${token}/telemetry`, JSON.parse(`[${samples.join(',')}]`), '')
    }
  }

  /** Deletes one device after the other until the server is gone. */
  async deleteAll(): Promise<void> {
    for (const device of this.#devices) {
      if (this.#isStopped) return
      appendFileSync(this.marks, 'deleting\n')
      try {
        await this.#delete(device)
        device.isDeleted = true
      } catch {
        // The kill came first: it is open whether these points are gone.
        return
      }
    }
  }

  stop(): void {
    this.#isStopped = true
  }

  /** What is wrong now, by each way of reading. Deletes the rest, so that no round leaves anything. */
  async check(readers: readonly Reader[]): Promise<{ whole: number; gone: number; problems: string[] }> {
    const problems: string[] = []
    let whole = 0
    let gone = 0
    const all = 2 * samplesAtOnce * keys.length
    for (const [index, device] of this.#devices.entries()) {
      const counts = new Set<number>()
      for (const reader of readers) counts.add((await reader.read(device.id, this.#base, this.#base + dayMs)).length)
      const [found = 0] = counts
      if (counts.size > 1) problems.push(`the ways of reading find ${[...counts].join(' and ')} points of victim ${index}`)
      if (found === all) whole++
      else if (found === 0) gone++
      else problems.push(`${found} of ${all} points of victim ${index} are left`)
      if (device.isDeleted && found > 0) problems.push(`the deletion of victim ${index} was confirmed, ${found} points are there`)
    }
    for (const device of this.#devices) await this.#delete(device)
    for (const [index, device] of this.#devices.entries()) {
      for (const reader of readers) {
        const { length } = await reader.read(device.id, this.#base, this.#base + dayMs)
        if (length > 0) problems.push(`${length} points of victim ${index} came back by ${reader.name}`)
      }
    }
    return { whole, gone, problems }
  }

  async #delete({ id }: Victim): Promise<void> {
    const query = new URLSearchParams({ keys: keys.join(','), from: String(this.#base), to: String(this.#base + dayMs) })
    await this.#installation.call('DELETE', `/api/v1/devices/${id}/telemetry?${query.toString()}`)
  }
}
