// SPDX-License-Identifier: AGPL-3.0-only
import type { Commands } from '../commands/commands.ts'
import type { Context } from '../context.ts'
import type { Device } from '../ingest/registry.ts'
import type { Reject } from '../ingest/rejects.ts'
import type { DisconnectReason, Session } from '../ingest/sessions.ts'
import type { ChildDeviceParts, ChildDevices, WantedChild } from './child-devices.ts'
import { parseName } from './child-requests.ts'
import { ChildSession } from './child-session.ts'
import { GatewayLink } from './gateway-link.ts'

export type ChildSessionParts = ChildDeviceParts & { devices: ChildDevices; commands: Commands }

/** Why a gateway is told that a child is not served any more: the MQTT 5 reason code of an administrative action [G-8]. */
const removed = 152

const wrongName: Reject = { code: 'SHAPE_INVALID', detail: 'the name of a child has 1–255 characters' }

/** The sessions of children, each inside that of its gateway: what opens them and what ends them. */
export class ChildSessions {
  readonly #context: Context
  readonly #parts: ChildSessionParts
  readonly #devices: ChildDevices
  readonly #links = new Map<Session, GatewayLink>()
  readonly #children = new Map<string, ChildSession>()
  readonly #ended: (link: GatewayLink) => void
  readonly #openedListeners = new Set<(child: ChildSession) => void>()

  /** @param ended the session of a gateway is over, and so are those of its children */
  constructor(context: Context, parts: ChildSessionParts, ended: (link: GatewayLink) => void) {
    this.#context = context
    this.#parts = parts
    this.#devices = parts.devices
    this.#ended = ended
    this.#listen()
  }

  get(deviceId: string): ChildSession | undefined {
    return this.#children.get(deviceId)
  }

  /** Every session that is open. */
  all(): Iterable<ChildSession> {
    return this.#children.values()
  }

  /** @returns what ends it */
  onOpened(listener: (child: ChildSession) => void): () => void {
    this.#openedListeners.add(listener)
    return () => this.#openedListeners.delete(listener)
  }

  linkOf(session: Session): GatewayLink {
    const link = this.#links.get(session) ?? new GatewayLink(session)
    // What a session sent before it ended may be served after that.
    if (this.#parts.sessions.get(session.device.id) === session) this.#links.set(session, link)
    else link.isEnded = true
    return link
  }

  /** Opens the sessions of children: those the gateway had before without asking the database for each [G-2]. */
  async connect(link: GatewayLink, wanted: readonly WantedChild[]): Promise<Map<string, ChildSession | Reject> | 'unavailable'> {
    const gateway = link.session.device
    if (link.owned === undefined) {
      const owned = await this.#devices.list(gateway)
      if (owned === 'unavailable') return owned
      link.owned = owned
    }
    const found = new Map<string, ChildSession | Reject>()
    const unknown: WantedChild[] = []
    for (const child of wanted) {
      const { name } = child
      const known = link.children.get(name)
      const device = this.#findOwned(link, name)
      if (known !== undefined) found.set(name, known)
      else if (parseName(name) === undefined) found.set(name, wrongName)
      else if (device !== undefined) found.set(name, this.#open(link, name, device))
      else unknown.push(child)
    }
    const ensured = unknown.length > 0 ? await this.#devices.ensure(gateway, unknown) : new Map<string, Device | Reject>()
    if (ensured === 'unavailable') return ensured
    for (const [name, one] of ensured) found.set(name, 'code' in one ? one : this.#open(link, name, one))
    return found
  }

  /** What was read of a device once is worth nothing when it was renamed, given away, or speaks for itself by now. */
  #findOwned({ owned, session }: GatewayLink, name: string): Device | undefined {
    const device = this.#parts.registry.get(owned?.get(name) ?? '')
    const isOurs = device?.gatewayId === session.device.id && device.name === name && !device.isDisabled
    return isOurs && !this.#parts.sessions.get(device.id) ? device : undefined
  }

  #open(link: GatewayLink, name: string, device: Device): ChildSession {
    const known = link.children.get(name)
    if (known !== undefined) return known
    const { states, log, commands } = this.#parts
    const at = this.#context.clock.now()
    const child = new ChildSession({ device, name, gateway: link.session, at, close: (one) => this.end(one, 'admin') })
    // What came before the gateway's session ended is still stored; it connects nobody.
    if (link.isEnded) return child
    const before = this.#children.get(device.id)
    if (before) this.end(before, 'takeover')
    link.owned?.set(name, device.id)
    link.children.set(name, child)
    this.#children.set(device.id, child)
    states.sessionOpened(device, false)
    log.add(device, 'connected', { gateway: link.session.device.name })
    commands.attach(device, child)
    for (const listener of this.#openedListeners) listener(child)
    return child
  }

  /** Ends the session of one child; its gateway may open it again by naming it. */
  end(child: ChildSession, reason: DisconnectReason): void {
    if (!this.#forget(child)) return
    this.#parts.states.sessionClosed(child, reason)
    this.#parts.log.add(child.device, 'disconnected', { reason, gateway: child.gateway.device.name })
  }

  /** Ends the session of a child without a word about its state. @returns false when it has ended before */
  #forget(child: ChildSession): boolean {
    if (this.#children.get(child.device.id) !== child) return false
    this.#children.delete(child.device.id)
    this.#links.get(child.gateway)?.children.delete(child.name)
    this.#parts.commands.detach(child.device, child)
    child.end()
    return true
  }

  /** [G-10] */
  #endAll(session: Session, reason: DisconnectReason): void {
    const link = this.#links.get(session)
    if (link === undefined) return
    link.isEnded = true
    for (const child of link.children.values()) this.end(child, reason)
    this.#links.delete(session)
    this.#ended(link)
  }

  #listen(): void {
    const { events } = this.#context
    const { sessions } = this.#parts
    sessions.on('closed', (session, reason) => this.#endAll(session, reason))
    // A device that connects by itself is its own master from then on; its state is that of its own session.
    sessions.on('opened', ({ device }) => {
      const child = this.#children.get(device.id)
      if (child) this.#forget(child)
    })
    events.on('attributes.changed', (change) => {
      if (change.scope === 'shared') this.#children.get(change.deviceId)?.pushAttributes(change)
    })
    events.on('device.changed', ({ deviceId, change }) => {
      const child = this.#children.get(deviceId)
      if (child && (change === 'deleted' || change === 'disabled')) {
        child.tellDisconnect(removed)
        // The row of a deleted device needs no state any more [G-9].
        if (change === 'deleted') this.#forget(child)
        else this.end(child, 'admin')
      }
      const session = sessions.get(deviceId)
      if (session && !session.device.isGateway) this.#endAll(session, 'admin')
    })
  }
}
