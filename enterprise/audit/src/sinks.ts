// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { mkdir, open } from 'node:fs/promises'
import { join } from 'node:path'
import { canonical } from './canonical.ts'
import type { Checkpoint, Entry } from './chain.ts'
import { toJsonLine } from './formats.ts'

/** What goes to a sink at once: consecutive entries of one chain, and checkpoints that have been signed since. */
export type Batch = { stream: string; entries: readonly Entry[]; checkpoints: readonly Checkpoint[] }

/** Takes a batch or throws; the same batch may come again [AU-42]. */
export type Sink = { name: string; send(batch: Batch, signal: AbortSignal): Promise<void> }

/** A stream's name as part of a file's. */
export function fileNameOf(stream: string): string {
  return stream.replaceAll(':', '-')
}

/**
 * [AU-41] The default sink: checkpoints in one file per chain, events in one per day of their own time if wanted, each
 * append flushed to the disk before it counts as delivered.
 */
export function createFileSink(folder: string, options: { name: string; events: boolean }): Sink {
  return {
    name: options.name,
    async send({ stream, entries, checkpoints }) {
      await mkdir(folder, { recursive: true, mode: 0o700 })
      const days = options.events ? Map.groupBy(entries, ({ payload }) => payload.ts.slice(0, 10)) : new Map<string, Entry[]>()
      for (const [day, those] of days) {
        await appendDurably(join(folder, `events-${fileNameOf(stream)}-${day}.jsonl`), those.map(toJsonLine).join(''))
      }
      if (checkpoints.length === 0) return
      const lines = checkpoints.map((checkpoint) => `${canonical(checkpoint)}\n`).join('')
      await appendDurably(join(folder, `checkpoints-${fileNameOf(stream)}.jsonl`), lines)
    },
  }
}

async function appendDurably(path: string, text: string): Promise<void> {
  const file = await open(path, 'a', 0o600)
  try {
    await file.appendFile(text)
    await file.sync()
  } finally {
    await file.close()
  }
}
