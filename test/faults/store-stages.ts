// SPDX-License-Identifier: AGPL-3.0-only

/** A step of the store at which the server is killed. */
export type Stage = {
  id: 'copy' | 'seal' | 'merge' | 'write' | 'commit' | 'drop' | 'delete'
  title: string
  /** Message of the log line that says the step begins; none: any moment. */
  line?: string
  /** The kill comes after a line of this number, chosen at random up to here. */
  most: number
  /** From the line to the kill at most, ms. */
  delayMs: number
}

/** After a line: within the step, mostly. */
const shortly = 15

export const stages: readonly Stage[] = [
  { id: 'copy', title: 'while points are copied into a segment', most: 0, delayMs: 2000 },
  { id: 'seal', title: 'while a segment is sealed and indexed', line: 'telemetry: sealing', most: 2, delayMs: shortly },
  { id: 'merge', title: 'while sealed segments are read', line: 'telemetry: merging', most: 2, delayMs: shortly },
  { id: 'write', title: 'while chunks are written', line: 'telemetry: writing chunks', most: 3, delayMs: shortly },
  {
    id: 'commit',
    title: 'while chunks and the end of their segments are committed',
    line: 'telemetry: committing chunks',
    most: 2,
    delayMs: shortly,
  },
  { id: 'drop', title: 'while the table of a merged segment is dropped', line: 'telemetry: dropping', most: 2, delayMs: shortly },
  // The test itself writes this line when it asks for a deletion.
  { id: 'delete', title: 'while points of other devices are deleted', line: 'deleting', most: 6, delayMs: shortly },
]
