// SPDX-License-Identifier: AGPL-3.0-only

/**
 * How far a downlink got:
 * - `written`: handed to the live connection; the end of one with QoS 0,
 * - `acknowledged`: the device sent its PUBACK,
 * - `too_large`: larger than the device takes, not sent [M-40],
 * - `dropped`: too many waited already [M-25],
 * - `closed`: the session ended before it was written, or before its PUBACK.
 */
export type DownlinkProgress = 'written' | 'acknowledged' | 'too_large' | 'dropped' | 'closed'

/** A message to a device. */
export type Downlink = {
  topic: string
  payload: Buffer
  /** Given only to overrule [M-38]: that of the subscription the topic belongs to, else 1. */
  qos?: 0 | 1
  /**
   * When too many wait, the last waiting downlink of the same key takes this one in: it gets the payload
   * that `merge` makes of both, and this one is told the progress of that one [M-25].
   */
  key?: string
  merge?: (older: Buffer, newer: Buffer) => Buffer
  /** Called never before `send` has returned: `written` at most once, then at most one of the others. */
  done?: (progress: DownlinkProgress) => void
}
