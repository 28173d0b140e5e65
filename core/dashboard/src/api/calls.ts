// SPDX-License-Identifier: AGPL-3.0-only
import { formatExact, parseExact } from '../exact-json.ts'
import { client, download, sendText, unwrap, unwrapWithResponse, upload } from './client.ts'
import type {
  Attribute,
  AttributeScope,
  Command,
  CommandResult,
  ConnectorCreate,
  ConnectorPatch,
  ConnectorPreview,
  ConnectorRule,
  ConnectorTest,
  Credentials,
  DeviceLimitsPatch,
  DevicePatch,
  DeviceQuery,
  FacetQuery,
  HistoryQuery,
  NoSession,
  OtaKind,
  PackageCreate,
  PackageQuery,
  Page,
  Product,
  ProductCreate,
  ProductPatch,
  Role,
  RolloutQuery,
  Scope,
  Series,
  Session,
  Setup,
} from './types.ts'

type PageQuery = { cursor?: string; limit?: number }
const byId = (id: string) => ({ params: { path: { id } } })

/** Every call the interface makes, by the things it is about. All throw `ApiError`. */
export const session = {
  setup: (body: Setup) => unwrap(client.POST('/api/v1/setup', { body })),
  login: (body: { email: string; password: string }) => unwrap(client.POST('/api/v1/auth/login', { body })),
  // The client's types drop members that are always null, and `user: null` is what tells the two apart.
  refresh: () => unwrap(client.POST('/api/v1/auth/refresh', { body: {} })) as Promise<Session | NoSession>,
  logout: () => unwrap(client.POST('/api/v1/auth/logout', { body: {} })),
  reauth: (password: string) => unwrap(client.POST('/api/v1/auth/reauth', { body: { password } })),
  reset: (body: { token: string; password: string }) => unwrap(client.POST('/api/v1/auth/reset', { body })),
}

export const me = {
  update: (body: { name?: string; language?: 'zh' | 'en'; prefs?: Record<string, unknown> }) =>
    unwrap(client.PATCH('/api/v1/me', { body })),
  changePassword: (body: { current: string; password: string }) => unwrap(client.POST('/api/v1/me/password', { body })),
  logins: () => unwrap(client.GET('/api/v1/me/sessions')),
  endLogin: (id: string) => unwrap(client.DELETE('/api/v1/me/sessions/{id}', byId(id))),
}

export const users = {
  list: () => unwrap(client.GET('/api/v1/users', { params: { query: { limit: 500 } } })),
  create: (body: { name: string; email: string; role: Role }) => unwrap(client.POST('/api/v1/users', { body })),
  update: (id: string, body: { name?: string; role?: Role; disabled?: boolean }) =>
    unwrap(client.PATCH('/api/v1/users/{id}', { ...byId(id), body })),
  delete: (id: string) => unwrap(client.DELETE('/api/v1/users/{id}', byId(id))),
  resetLink: (id: string) => unwrap(client.POST('/api/v1/users/{id}/reset-link', byId(id))),
}

export const apiKeys = {
  list: () => unwrap(client.GET('/api/v1/api-keys')),
  create: (body: { name: string; scopes: Scope[]; expiresInDays: number }) => unwrap(client.POST('/api/v1/api-keys', { body })),
  delete: (id: string) => unwrap(client.DELETE('/api/v1/api-keys/{id}', byId(id))),
}

export const devices = {
  list: (query: DeviceQuery, signal: AbortSignal) => unwrap(client.GET('/api/v1/devices', { params: { query }, signal })),
  facets: (query: FacetQuery) => unwrap(client.GET('/api/v1/devices/facets', { params: { query } })),
  create: (body: { name: string; productId?: string; gateway?: boolean }) => unwrap(client.POST('/api/v1/devices', { body })),
  get: (id: string) => unwrapWithResponse(client.GET('/api/v1/devices/{id}', byId(id))),
  update: (id: string, body: DevicePatch, etag?: string) =>
    unwrap(client.PATCH('/api/v1/devices/{id}', { params: { path: { id } }, body, ...(etag ? { headers: { 'if-match': etag } } : {}) })),
  delete: (id: string) => unwrap(client.DELETE('/api/v1/devices/{id}', byId(id))),
  credentials: (id: string) => unwrap(client.GET('/api/v1/devices/{id}/credentials', byId(id))),
  setCredentials: (id: string, body: Credentials) => unwrap(client.PUT('/api/v1/devices/{id}/credentials', { ...byId(id), body })),
  rotate: (id: string, graceSeconds: number) =>
    unwrap(client.POST('/api/v1/devices/{id}/credentials/rotate', { ...byId(id), body: { graceSeconds } })),
  session: (id: string) => unwrap(client.GET('/api/v1/devices/{id}/session', byId(id))),
  closeSession: (id: string) => unwrap(client.DELETE('/api/v1/devices/{id}/session', byId(id))),
  rejects: (id: string, query: PageQuery) => unwrap(client.GET('/api/v1/devices/{id}/rejects', { params: { path: { id }, query } })),
  clearRejects: (id: string) => unwrap(client.DELETE('/api/v1/devices/{id}/rejects', byId(id))),
  log: (id: string, query: PageQuery) => unwrap(client.GET('/api/v1/devices/{id}/log', { params: { path: { id }, query } })),
}

export const telemetry = {
  latest: (id: string) => unwrap(client.GET('/api/v1/devices/{id}/telemetry', byId(id))),
  /** Pairs are pairs: the schema only knows arrays. */
  history: async (id: string, query: HistoryQuery, signal: AbortSignal): Promise<Series[]> =>
    (await unwrap(client.GET('/api/v1/devices/{id}/telemetry/history', { params: { path: { id }, query }, signal }))).series as Series[],
}

export const bin = {
  list: (query: PageQuery) => unwrap(client.GET('/api/v1/bin', { params: { query } })),
  restore: (ids: string[]) => unwrap(client.POST('/api/v1/bin/restore', { body: { ids } })),
  purge: (ids: string[]) => unwrap(client.DELETE('/api/v1/bin', { body: { ids } })),
}

/** Values of JSON keep their digits: `value` holds what `parseExact` makes. */
export const attributes = {
  list: async (id: string, scope: AttributeScope, query: PageQuery) =>
    parseExact(
      await unwrap<string>(
        client.GET('/api/v1/devices/{id}/attributes/{scope}', { params: { path: { id, scope }, query }, parseAs: 'text' }),
      ),
    ) as Page<Attribute>,
  /** `json` is the merge patch as text; null deletes. */
  set: (id: string, scope: 'shared' | 'server', json: string) => sendText('PATCH', `/api/v1/devices/${id}/attributes/${scope}`, json),
  delete: (id: string, scope: AttributeScope, key: string) =>
    unwrap(client.DELETE('/api/v1/devices/{id}/attributes/{scope}', { params: { path: { id, scope }, query: { key: [key] } } })),
}

export const commands = {
  list: async (id: string, query: PageQuery, signal: AbortSignal) =>
    parseExact(
      await unwrap<string>(client.GET('/api/v1/devices/{id}/commands', { params: { path: { id }, query }, signal, parseAs: 'text' })),
    ) as Page<Command>,
  get: async (id: string, commandId: string) =>
    parseExact(
      await unwrap<string>(
        client.GET('/api/v1/devices/{id}/commands/{commandId}', { params: { path: { id, commandId } }, parseAs: 'text' }),
      ),
    ) as Command,
  /** `json` is the wish as text. A stored command answers at once, another when it has ended. */
  send: async (id: string, json: string, signal?: AbortSignal) =>
    parseExact(await sendText('POST', `/api/v1/devices/${id}/commands`, json, signal)) as Command | CommandResult,
  cancel: (id: string, commandId: string) =>
    unwrap(client.DELETE('/api/v1/devices/{id}/commands/{commandId}', { params: { path: { id, commandId } } })),
}

function exactProduct({ data, response }: { data: string; response: Response }) {
  return { data: parseExact(data) as Product, response }
}

export const products = {
  list: () => unwrap(client.GET('/api/v1/products', { params: { query: { limit: 500 } } })),
  page: (query: PageQuery, signal: AbortSignal) => unwrap(client.GET('/api/v1/products', { params: { query }, signal })),
  /** Ready answers keep their digits. */
  get: async (id: string) =>
    exactProduct(await unwrapWithResponse<string>(client.GET('/api/v1/products/{id}', { ...byId(id), parseAs: 'text' }))),
  create: (body: ProductCreate) => unwrap(client.POST('/api/v1/products', { body })),
  update: async (id: string, body: ProductPatch, etag: string | undefined) =>
    exactProduct(
      await unwrapWithResponse<string>(
        client.PATCH('/api/v1/products/{id}', {
          ...byId(id),
          body,
          bodySerializer: formatExact,
          parseAs: 'text',
          ...(etag ? { headers: { 'if-match': etag } } : {}),
        }),
      ),
    ),
  delete: (id: string) => unwrap(client.DELETE('/api/v1/products/{id}', byId(id))),
}

export const connectors = {
  list: (query: PageQuery, signal: AbortSignal) => unwrap(client.GET('/api/v1/connectors', { params: { query }, signal })),
  get: (id: string) => unwrapWithResponse(client.GET('/api/v1/connectors/{id}', byId(id))),
  create: (body: ConnectorCreate) => unwrap(client.POST('/api/v1/connectors', { body })),
  update: (id: string, body: ConnectorPatch, etag?: string) =>
    unwrapWithResponse(
      client.PATCH('/api/v1/connectors/{id}', { params: { path: { id } }, body, ...(etag ? { headers: { 'if-match': etag } } : {}) }),
    ),
  delete: (id: string) => unwrap(client.DELETE('/api/v1/connectors/{id}', byId(id))),
  messages: (id: string) => unwrap(client.GET('/api/v1/connectors/{id}/messages', byId(id))),
  presets: () => unwrap(client.GET('/api/v1/connectors/presets')),
  test: (body: ConnectorTest) => unwrap(client.POST('/api/v1/connectors/test', { body })),
  preview: (topic: string, payload: string, rules: ConnectorRule[], signal: AbortSignal): Promise<ConnectorPreview> =>
    unwrap(client.POST('/api/v1/connectors/preview', { body: { topic, payload, rules }, signal })),
}

export const deviceLimits = {
  get: () => unwrap(client.GET('/api/v1/settings/device-limits')),
  update: (body: DeviceLimitsPatch) => unwrap(client.PATCH('/api/v1/settings/device-limits', { body })),
}

export const firmware = {
  list: (query: PackageQuery, signal: AbortSignal) => unwrap(client.GET('/api/v1/ota-packages', { params: { query }, signal })),
  get: (id: string) => unwrap(client.GET('/api/v1/ota-packages/{id}', byId(id))),
  create: (body: PackageCreate) => unwrap(client.POST('/api/v1/ota-packages', { body })),
  delete: (id: string) => unwrap(client.DELETE('/api/v1/ota-packages/{id}', byId(id))),
  upload: (id: string, file: File, watch: { progress: (share: number) => void; signal: AbortSignal }) =>
    upload(`/api/v1/ota-packages/${id}/content`, { fileName: file.name, size: String(file.size) }, file, watch),
  download: (id: string) => download(`/api/v1/ota-packages/${id}/content`, {}),
  rollout: (id: string, query: RolloutQuery, signal: AbortSignal) =>
    unwrap(client.GET('/api/v1/ota-packages/{id}/devices', { params: { path: { id }, query }, signal })),
  /** Null takes the product's package away. */
  setOfProduct: (productId: string, kind: OtaKind, packageId: string | null) =>
    unwrap(
      client.PATCH('/api/v1/products/{id}', {
        ...byId(productId),
        body: { ota: kind === 'firmware' ? { firmwareId: packageId } : { softwareId: packageId } },
      }),
    ),
  ofDevice: (deviceId: string, kind: OtaKind) =>
    kind === 'firmware'
      ? unwrap(client.GET('/api/v1/devices/{id}/firmware', byId(deviceId)))
      : unwrap(client.GET('/api/v1/devices/{id}/software', byId(deviceId))),
  assign: (deviceId: string, kind: OtaKind, packageId: string) =>
    kind === 'firmware'
      ? unwrap(client.PUT('/api/v1/devices/{id}/firmware', { ...byId(deviceId), body: { packageId } }))
      : unwrap(client.PUT('/api/v1/devices/{id}/software', { ...byId(deviceId), body: { packageId } })),
  takeAway: (deviceId: string, kind: OtaKind) =>
    kind === 'firmware'
      ? unwrap(client.DELETE('/api/v1/devices/{id}/firmware', byId(deviceId)))
      : unwrap(client.DELETE('/api/v1/devices/{id}/software', byId(deviceId))),
}

export const license = {
  get: () => unwrap(client.GET('/api/v1/license')),
  history: (query: PageQuery, signal: AbortSignal) => unwrap(client.GET('/api/v1/license/history', { params: { query }, signal })),
  preview: (text: string) => unwrap(client.POST('/api/v1/license/preview', { body: { license: text } })),
  install: (text: string, acknowledge: boolean) =>
    unwrap(client.POST('/api/v1/license', { body: { license: text, acknowledge }, params: { query: {} } })),
  remove: () => unwrap(client.DELETE('/api/v1/license', { params: { query: { acknowledge: 'true' } } })),
  request: (body: { mode?: 'host' | 'instance' | 'cluster'; note?: string }) =>
    unwrapWithResponse(client.POST('/api/v1/license/request', { body })),
  installCrl: (text: string) => unwrap(client.POST('/api/v1/license/crl', { body: { crl: text } })),
}

export const editions = {
  /** As it is now: the answer may be kept for a minute by others. */
  get: () => unwrap(client.GET('/api/v1/editions', { cache: 'no-store' })),
}

export const modules = {
  list: () => unwrap(client.GET('/api/v1/modules')),
}

export const system = {
  overview: () => unwrap(client.GET('/api/v1/overview')),
  endpoints: () => unwrap(client.GET('/api/v1/system/endpoints')),
  disk: () => unwrap(client.GET('/api/v1/system/disk')),
  refused: () => unwrap(client.GET('/api/v1/system/refused-connections')),
  loadDemo: () => unwrap(client.POST('/api/v1/demo')),
  clearDemo: () => unwrap(client.DELETE('/api/v1/demo')),
  updateSite: (body: { name?: string; timeZone?: string; language?: 'zh' | 'en' }) =>
    unwrap(client.PATCH('/api/v1/settings/site', { body })),
  ticket: () => unwrap(client.POST('/api/v1/stream/ticket', { body: {} })),
  reportError: (body: { message: string; stack?: string; route: string; version: string }) =>
    unwrap(client.POST('/api/v1/client-errors', { body })),
}
