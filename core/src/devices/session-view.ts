// SPDX-License-Identifier: AGPL-3.0-only
import type { ChildSession } from '../gateway/child-session.ts'
import type { Session } from '../ingest/sessions.ts'

/** The session of a device [S-6]; null when there is none. */
export function viewSession(session: Session | undefined) {
  if (!session) return null
  const { protocol, clientId, address, tls, keepAliveS, messagesIn, pointsIn, inFlight } = session
  return {
    protocol,
    clientId,
    address,
    tls,
    keepAliveS,
    connectedAt: new Date(session.connectedAt).toISOString(),
    messagesIn,
    pointsIn,
    inFlight,
    subscriptions: [...session.subscriptions.keys()],
  }
}

/** The session of a child inside that of its gateway. */
export function viewGateway(child: ChildSession | undefined) {
  if (!child) return null
  const { gateway, connectedAt, lastActivityAt } = child
  const instant = (ms: number) => new Date(ms).toISOString()
  return { id: gateway.device.id, name: gateway.device.name, connectedAt: instant(connectedAt), lastActivityAt: instant(lastActivityAt) }
}
