// SPDX-License-Identifier: AGPL-3.0-only
import type { paths } from './schema.d.ts'

/** Names for the shapes of the generated schema. What the schema leaves open (pairs of a series, kinds) is narrowed here. */
type Json<R> = R extends { content: { 'application/json': infer T } } ? T : never
type Answer<P extends keyof paths, M extends keyof paths[P], S extends number> = paths[P][M] extends { responses: infer R }
  ? S extends keyof R
    ? Json<R[S]>
    : never
  : never
type Body<P extends keyof paths, M extends keyof paths[P]> = paths[P][M] extends {
  requestBody: { content: { 'application/json': infer T } }
}
  ? T
  : never
type Query<P extends keyof paths, M extends keyof paths[P]> = paths[P][M] extends { parameters: { query?: infer Q } }
  ? NonNullable<Q>
  : never

export type Session = Answer<'/api/v1/auth/login', 'post', 200>
export type NoSession = Extract<Answer<'/api/v1/auth/refresh', 'post', 200>, { user: null }>
export type User = Session['user']
export type Role = User['role']
export type Site = Session['site']
export type Setup = Body<'/api/v1/setup', 'post'>
export type Login = Answer<'/api/v1/me/sessions', 'get', 200>['items'][number]
export type UserRow = Answer<'/api/v1/users', 'get', 200>['items'][number]
export type ApiKey = Answer<'/api/v1/api-keys', 'get', 200>['items'][number]
export type Scope = Body<'/api/v1/api-keys', 'post'>['scopes'][number]

export type Page<T> = { items: T[]; nextCursor: string | null }
export type Device = Answer<'/api/v1/devices/{id}', 'get', 200>
export type DeviceState = Device['state']
export type DeviceQuery = Query<'/api/v1/devices', 'get'>
export type FacetQuery = Query<'/api/v1/devices/facets', 'get'>
export type DevicePatch = Body<'/api/v1/devices/{id}', 'patch'>
export type Credentials = Answer<'/api/v1/devices/{id}/credentials', 'get', 200>
export type Facet = Answer<'/api/v1/devices/facets', 'get', 200>['tag'][number]
export type LogEntry = Answer<'/api/v1/devices/{id}/log', 'get', 200>['items'][number]
export type Reject = Answer<'/api/v1/devices/{id}/rejects', 'get', 200>['items'][number]
export type BinItem = Answer<'/api/v1/bin', 'get', 200>['items'][number]
export type Product = Answer<'/api/v1/products', 'get', 200>['items'][number]
export type ProductCreate = Body<'/api/v1/products', 'post'>
export type ProductPatch = Body<'/api/v1/products/{id}', 'patch'>
export type DeviceLimits = Answer<'/api/v1/settings/device-limits', 'get', 200>
export type DeviceLimitsPatch = Body<'/api/v1/settings/device-limits', 'patch'>
export type KeyModel = Product['model']['keys'][string]
export type Latest = Answer<'/api/v1/devices/{id}/telemetry', 'get', 200>['items'][number]
export type HistoryQuery = Query<'/api/v1/devices/{id}/telemetry/history', 'get'>
export type RawPoint = [ts: number, value: unknown]
export type Series = { key: string; agg: string; points: RawPoint[]; int64?: true }

export type License = Answer<'/api/v1/license', 'get', 200>
export type LicenseFeature = License['features'][number]
export type LicensePreview = Answer<'/api/v1/license/preview', 'post', 200>
export type LicenseChange = LicensePreview['changes'][number]
export type LicenseEvent = Answer<'/api/v1/license/history', 'get', 200>['items'][number]
export type Module = Answer<'/api/v1/modules', 'get', 200>['items'][number]
/** `value` as `parseExact` reads it. */
export type Attribute = Answer<'/api/v1/devices/{id}/attributes/{scope}', 'get', 200>['items'][number]
export type AttributeScope = 'client' | 'shared' | 'server'
export type Command = Answer<'/api/v1/devices/{id}/commands/{commandId}', 'get', 200>
export type CommandState = Command['state']
export type CommandResult = Answer<'/api/v1/devices/{id}/commands', 'post', 200>

export type Connector = Answer<'/api/v1/connectors/{id}', 'get', 200>
export type ConnectorCreate = Body<'/api/v1/connectors', 'post'>
export type ConnectorPatch = Body<'/api/v1/connectors/{id}', 'patch'>
export type ConnectorTest = Body<'/api/v1/connectors/test', 'post'>
export type ConnectorPreview = Answer<'/api/v1/connectors/preview', 'post', 200>
export type ConnectorPreset = Answer<'/api/v1/connectors/presets', 'get', 200>[number]
export type ConnectorRule = Connector['rules'][number]
export type BrokerSample = Answer<'/api/v1/connectors/{id}/messages', 'get', 200>[number]

export type OtaPackage = Answer<'/api/v1/ota-packages/{id}', 'get', 200>
export type OtaKind = OtaPackage['kind']
export type PackageCreate = Body<'/api/v1/ota-packages', 'post'>
export type PackageQuery = Query<'/api/v1/ota-packages', 'get'>
export type Rollout = Answer<'/api/v1/ota-packages/{id}/devices', 'get', 200>
export type RolloutQuery = Query<'/api/v1/ota-packages/{id}/devices', 'get'>
export type OtaEvent = Answer<'/api/v1/devices/{id}/firmware', 'get', 200>['trace'][number]
export type OtaState = NonNullable<RolloutQuery['state']>

export type Overview = Answer<'/api/v1/overview', 'get', 200>
/** One minute of the ingest series. */
export type Minute = [ts: number, points: number, rejects: number]
export type DeviceCounts = Overview['devices']
export type Attention = Overview['attention'][number]
export type DiskState = Answer<'/api/v1/system/disk', 'get', 200>
export type Refused = Answer<'/api/v1/system/refused-connections', 'get', 200>['items'][number]

export type ChannelType = Answer<'/api/v1/notifications/channel-types', 'get', 200>['items'][number]
export type Channel = Answer<'/api/v1/notifications/channels/{id}', 'get', 200>
export type ChannelCreate = Body<'/api/v1/notifications/channels', 'post'>
export type ChannelPatch = Body<'/api/v1/notifications/channels/{id}', 'patch'>
export type ChannelTest = Body<'/api/v1/notifications/channels/{id}/test', 'post'>
export type ChannelTestResult = Answer<'/api/v1/notifications/channels/{id}/test', 'post', 200>
export type Delivery = Answer<'/api/v1/notifications/deliveries', 'get', 200>['items'][number]
export type DeliveryQuery = Query<'/api/v1/notifications/deliveries', 'get'>
export type Message = Answer<'/api/v1/notifications/messages/{id}', 'get', 200>
export type MessageDelivery = Message['deliveries'][number]
export type InboxEntry = Answer<'/api/v1/notifications/inbox', 'get', 200>['items'][number]
export type NotifyStats = Answer<'/api/v1/notifications/stats', 'get', 200>['items'][number]
export type Silence = Answer<'/api/v1/notifications/silences', 'get', 200>['items'][number]
export type SilenceCreate = Body<'/api/v1/notifications/silences', 'post'>
export type RouteMatch = Answer<'/api/v1/notifications/routing/test', 'post', 200>['matches'][number]
export type Escalation = Answer<'/api/v1/notifications/escalations', 'get', 200>['items'][number]
export type EscalationCreate = Body<'/api/v1/notifications/escalations', 'post'>
export type NotifyPreferences = Answer<'/api/v1/notifications/preferences/me', 'get', 200>
export type ContactPoint = Answer<'/api/v1/notifications/contact-points/me', 'get', 200>['items'][number]
export type BulkRetry = Body<'/api/v1/notifications/deliveries/bulk-retry', 'post'>
export type Template = Answer<'/api/v1/notifications/templates', 'get', 200>['items'][number]
export type TemplateDetail = Answer<'/api/v1/notifications/templates/{id}', 'get', 200>
export type TemplateCreate = Body<'/api/v1/notifications/templates', 'post'>
export type TemplatePreview = Body<'/api/v1/notifications/templates/preview', 'post'>
export type TemplatePreviewed = Answer<'/api/v1/notifications/templates/preview', 'post', 200>

export type Operation = Answer<'/api/v1/jobs/{id}', 'get', 200>
export type Alarm = Answer<'/api/v1/alarms/{id}', 'get', 200>
export type AlarmSeverity = Alarm['severity']
export type AlarmEvent = Answer<'/api/v1/alarms/{id}/events', 'get', 200>['items'][number]
export type AlarmQuery = Query<'/api/v1/alarms', 'get'>
export type AlarmSummary = Answer<'/api/v1/alarms/summary', 'get', 200>
export type AlarmBulk = Body<'/api/v1/alarms/bulk', 'post'>

export type Rule = Answer<'/api/v1/rules/{id}', 'get', 200>
export type RuleQuery = Query<'/api/v1/rules', 'get'>
export type RuleBulk = Body<'/api/v1/rules/bulk', 'post'>
export type RulePreview = Body<'/api/v1/rules/preview', 'post'>
export type RulePreviewed = Answer<'/api/v1/rules/preview', 'post', 200>
export type RuleVersion = Answer<'/api/v1/rules/{id}/versions', 'get', 200>['items'][number]
export type RuleRun = Answer<'/api/v1/rules/{id}/runs', 'get', 200>['items'][number]
export type RuleDryRun = Answer<'/api/v1/rules/{id}/dry-runs', 'get', 200>['items'][number]

export type Queue = Answer<'/api/v1/job-queues', 'get', 200>['items'][number]
export type JobQuery = Query<'/api/v1/job-queues/{queue}/jobs', 'get'>
export type JobState = NonNullable<JobQuery['state']>
export type Job = Answer<'/api/v1/job-queues/{queue}/jobs', 'get', 200>['items'][number]
export type JobDetail = Answer<'/api/v1/job-queues/{queue}/jobs/{id}', 'get', 200>
export type Redrive = Body<'/api/v1/job-queues/{queue}/dead/redrive', 'post'>
export type Redriven = Answer<'/api/v1/job-queues/{queue}/dead/redrive', 'post', 200>
export type Schedule = Answer<'/api/v1/schedules', 'get', 200>['items'][number]
export type ScheduleCreate = Body<'/api/v1/schedules', 'post'>
export type SchedulePatch = Body<'/api/v1/schedules/{id}', 'patch'>
export type Quarantined = Answer<'/api/v1/job-quarantine', 'get', 200>['items'][number]
