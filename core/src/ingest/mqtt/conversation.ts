// SPDX-License-Identifier: AGPL-3.0-only
import type { RejectCode } from '../rejects.ts'
import type { DisconnectReason } from '../sessions.ts'

/** One complete control packet: its bytes, its type, and where its body begins. */
export type Frame = { frame: Buffer; type: number; bodyAt: number }

/** A mistake of the client that its connection can't go on after. */
export type Mistake = { code: number; detail: string; sample?: Buffer; logCode?: RejectCode }

/** A message that has to wait: it is served again as soon as `until` calls back, or closes the connection then. */
export type Hold = { until: (goOn: () => void) => void; thenCloses: boolean }

/** What a connection serves after its CONNECT: the session of a device, or one for provisioning [§7]. */
export type Conversation = {
  /** MQTT protocol level: 3, 4 (3.1.1) or 5. */
  readonly protocol: number
  readonly maxPacketSize: number
  readonly keepAliveS: number
  /** How long the client may say nothing when its keep-alive is 0. */
  readonly inactivityTimeoutMs: number
  /** Everything that was taken is answered. */
  readonly isIdle: boolean
  /** No PUBLISH may be taken now; `waitForRoom` is called when it is the sink that has none. */
  mustWait(waitForRoom: () => void): boolean
  /** Serves a packet; tells when the connection ends by it, or has to wait with it. */
  serve(packet: Frame): 'client' | Mistake | Hold | undefined
  /** Writes what is due; tells when the connection ends by it, `close` when all about that is said. */
  writeAnswers(): 'close' | Mistake | undefined
  /** How the connection ends when its time is over whatever it does. */
  findOverdue(now: number): { code: number; text: string } | undefined
  /** Notes what the connection ends by. */
  record(mistake: Mistake): void
  /** The connection is over, or about to be. */
  end(why: DisconnectReason): void
}
