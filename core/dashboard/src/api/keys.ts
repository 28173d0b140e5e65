// SPDX-License-Identifier: AGPL-3.0-only

/** Cache keys. A mutation names the keys it invalidates; no page refreshes another by hand [D-36]. */
export const keys = {
  overview: () => ['overview'],
  device: (id: string) => ['device', id],
  deviceLatest: (id: string) => ['device', id, 'latest'],
  deviceSession: (id: string) => ['device', id, 'session'],
  deviceHints: (id: string) => ['device', id, 'hints'],
  deviceAttributes: (id: string) => ['device', id, 'attributes'],
  product: (id: string) => ['product', id],
  deviceLimits: () => ['settings', 'device-limits'],
  products: () => ['products'],
  facets: (query: Record<string, string>) => ['devices', 'facets', query],
  devices: () => ['devices'],
  recentDevices: () => ['devices', 'recent'],
  bin: () => ['bin'],
  users: () => ['users'],
  apiKeys: () => ['api-keys'],
  logins: () => ['me', 'sessions'],
  endpoints: () => ['system', 'endpoints'],
  refused: () => ['system', 'refused'],
  license: () => ['license'],
  modules: () => ['modules'],
  channelTypes: () => ['notifications', 'types'],
  channels: () => ['notifications', 'channels'],
  inbox: () => ['notifications', 'inbox'],
  notifyStats: (span: string) => ['notifications', 'stats', span],
  routing: () => ['notifications', 'routing'],
  escalations: () => ['notifications', 'escalations'],
  contactPoints: () => ['notifications', 'contact-points'],
  templates: () => ['notifications', 'templates'],
  queues: () => ['jobs', 'queues'],
  queue: (name: string) => ['jobs', 'queues', name],
  workers: () => ['jobs', 'workers'],
  quarantine: () => ['jobs', 'quarantine'],
}

/** How long an answer counts as fresh, ms. */
export const freshMs = { list: 10_000, normal: 30_000, catalogue: 600_000 }
