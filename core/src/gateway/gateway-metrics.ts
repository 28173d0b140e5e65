// SPDX-License-Identifier: AGPL-3.0-only

/** What a gateway says about an element of a message [G-4]. */
type Metadata = { connector: string; receivedTs?: number; publishedTs?: number }

/** More connectors than a gateway has; a gateway that makes names up takes no memory without end. */
const mostConnectors = 100
const longestName = 255

class Span {
  #count = 0
  #sum = 0
  #min = Number.POSITIVE_INFINITY
  #max = Number.NEGATIVE_INFINITY

  add(ms: number): void {
    this.#count++
    this.#sum += ms
    this.#min = Math.min(this.#min, ms)
    this.#max = Math.max(this.#max, ms)
  }

  /** Whole milliseconds; nothing when nothing was measured. */
  format(name: string): Record<string, number> {
    if (this.#count === 0) return {}
    return {
      [`avg${name}`]: Math.round(this.#sum / this.#count),
      [`min${name}`]: this.#min,
      [`max${name}`]: this.#max,
    }
  }
}

/** How long the data of a gateway took from its connectors to the gateway's sending, and from there to us [G-4]. */
export class GatewayMetrics {
  #connectors = new Map<string, { gateway: Span; transport: Span }>()

  get isEmpty(): boolean {
    return this.#connectors.size === 0
  }

  /** @returns false when the text is no metadata of a gateway but a value like any other */
  add(text: string, receivedAt: number): boolean {
    const metadata = parseMetadata(text)
    if (metadata === undefined) return false
    const { connector, receivedTs, publishedTs } = metadata
    if (!this.#connectors.has(connector)) {
      if (this.#connectors.size >= mostConnectors) return true
      this.#connectors.set(connector, { gateway: new Span(), transport: new Span() })
    }
    const { gateway, transport } = this.#connectors.get(connector)!
    if (publishedTs !== undefined && receivedTs !== undefined) gateway.add(publishedTs - receivedTs)
    if (publishedTs !== undefined) transport.add(receivedAt - publishedTs)
    return true
  }

  /** The value of the telemetry key `gatewayMetrics` as JSON text; then measuring starts anew. */
  take(): string {
    const connectors = this.#connectors
    this.#connectors = new Map()
    const entries = [...connectors].map(([name, { gateway, transport }]) => [
      name,
      { ...gateway.format('GwLatency'), ...transport.format('TransportLatency') },
    ])
    return JSON.stringify(Object.fromEntries(entries))
  }
}

function parseMetadata(text: string): Metadata | undefined {
  const { connector, receivedTs, publishedTs } = JSON.parse(text) as Record<string, unknown>
  if (typeof connector !== 'string' || connector.length > longestName) return undefined
  return {
    connector,
    ...(typeof receivedTs === 'number' ? { receivedTs } : {}),
    ...(typeof publishedTs === 'number' ? { publishedTs } : {}),
  }
}
