// SPDX-License-Identifier: AGPL-3.0-only
import { createRouter, createWebHistory } from 'vue-router'
import type { Router, RouteRecordRaw } from 'vue-router'
import { basePath, baseUrl } from './base.ts'
import { leavePage } from './composables/use-page.ts'
import { loadPageTexts } from './i18n/index.ts'
import {
  IconBadge,
  IconBell,
  IconBox,
  IconCable,
  IconCpu,
  IconInbox,
  IconKey,
  IconListChecks,
  IconOverview,
  IconPackage,
  IconPlug,
  IconServer,
  IconSiren,
  IconTrash,
  IconUser,
  IconUsers,
  IconWorkflow,
} from './icons.ts'
import { readReturnTo } from './return-to.ts'
import { useSession } from './session.ts'

/** Title, icon, group and permission of a page stand here; the menu is computed from them. */
const routes: RouteRecordRaw[] = [
  { path: '/setup', name: 'setup', component: () => import('./pages/start/SetupPage.vue'), meta: { isPublic: true } },
  { path: '/login', name: 'login', component: () => import('./pages/start/LoginPage.vue'), meta: { isPublic: true } },
  { path: '/reset', name: 'reset', component: () => import('./pages/start/ResetPage.vue'), meta: { isPublic: true } },
  {
    path: '/',
    name: 'overview',
    component: () => import('./pages/overview/OverviewPage.vue'),
    meta: { title: 'overview.title', icon: IconOverview, group: 'monitor', order: 1, permission: 'device.read', isPrimary: true },
  },
  {
    path: '/devices',
    name: 'devices',
    component: () => import('./pages/devices/DeviceListPage.vue'),
    meta: { title: 'devices.title', icon: IconCpu, group: 'monitor', order: 2, permission: 'device.read', isPrimary: true },
  },
  {
    path: '/devices/:id',
    component: () => import('./pages/device/DevicePage.vue'),
    props: true,
    meta: { permission: 'device.read' },
    children: [
      { path: '', redirect: { name: 'device.overview' } },
      { path: 'overview', name: 'device.overview', component: () => import('./pages/device/OverviewTab.vue') },
      { path: 'telemetry', name: 'device.telemetry', component: () => import('./pages/device/TelemetryTab.vue') },
      { path: 'children', name: 'device.children', component: () => import('./pages/device/ChildrenTab.vue') },
      { path: 'attributes', name: 'device.attributes', component: () => import('./pages/device/AttributesTab.vue') },
      { path: 'commands', name: 'device.commands', component: () => import('./pages/device/CommandsTab.vue') },
      { path: 'rejects', name: 'device.rejects', component: () => import('./pages/device/RejectsTab.vue') },
      { path: 'log', name: 'device.log', component: () => import('./pages/device/LogTab.vue') },
      { path: 'connect', name: 'device.connect', component: () => import('./pages/device/ConnectTab.vue') },
      { path: 'settings', name: 'device.settings', component: () => import('./pages/device/SettingsTab.vue') },
    ],
  },
  {
    path: '/alarms',
    name: 'alarms',
    component: () => import('./pages/alarms/AlarmListPage.vue'),
    meta: { title: 'alarms.title', icon: IconSiren, group: 'monitor', order: 3, permission: 'alarm.read', isPrimary: true },
  },
  {
    path: '/alarms/:id',
    name: 'alarm',
    component: () => import('./pages/alarms/AlarmPage.vue'),
    props: true,
    meta: { permission: 'alarm.read' },
  },
  {
    path: '/rules',
    name: 'rules',
    component: () => import('./pages/rules/RuleListPage.vue'),
    meta: { title: 'rules.title', icon: IconWorkflow, group: 'configure', order: 1, permission: 'rule.read' },
  },
  {
    path: '/rules/new',
    name: 'rule.new',
    component: () => import('./pages/rules/RulePage.vue'),
    meta: { permission: 'rule.write' },
  },
  {
    path: '/rules/:id',
    name: 'rule',
    component: () => import('./pages/rules/RulePage.vue'),
    props: true,
    meta: { permission: 'rule.read' },
  },
  {
    path: '/products',
    name: 'products',
    component: () => import('./pages/products/ProductListPage.vue'),
    meta: { title: 'products.title', icon: IconBox, group: 'configure', order: 1, permission: 'product.read' },
  },
  {
    path: '/products/:id',
    component: () => import('./pages/products/ProductPage.vue'),
    props: true,
    meta: { permission: 'product.read' },
    children: [
      { path: '', redirect: { name: 'product.overview' } },
      { path: 'overview', name: 'product.overview', component: () => import('./pages/products/BasicsTab.vue') },
      { path: 'model', name: 'product.model', component: () => import('./pages/products/ModelTab.vue') },
      { path: 'transport', name: 'product.transport', component: () => import('./pages/products/TransportTab.vue') },
      { path: 'payload', name: 'product.payload', component: () => import('./pages/products/PayloadTab.vue') },
      { path: 'limits', name: 'product.limits', component: () => import('./pages/products/LimitsTab.vue') },
      { path: 'rpc', name: 'product.rpc', component: () => import('./pages/products/RpcTab.vue') },
      { path: 'provisioning', name: 'product.provisioning', component: () => import('./pages/products/ProvisioningTab.vue') },
    ],
  },
  {
    path: '/connectors',
    name: 'connectors',
    component: () => import('./pages/connectors/ConnectorListPage.vue'),
    meta: { title: 'connectors.title', icon: IconCable, group: 'configure', order: 2, permission: 'settings.read' },
  },
  {
    path: '/connectors/new',
    name: 'connector.new',
    component: () => import('./pages/connectors/ConnectorPage.vue'),
    meta: { permission: 'settings.write' },
  },
  {
    path: '/connectors/:id',
    name: 'connector',
    component: () => import('./pages/connectors/ConnectorPage.vue'),
    props: true,
    meta: { permission: 'settings.read' },
  },
  {
    path: '/notifications',
    component: () => import('./pages/notifications/NotificationsPage.vue'),
    meta: { title: 'notifications.title', icon: IconBell, group: 'configure', order: 1, permission: 'notify.read' },
    children: [
      { path: '', redirect: { name: 'notifications.overview' } },
      { path: 'overview', name: 'notifications.overview', component: () => import('./pages/notifications/OverviewTab.vue') },
      { path: 'channels', name: 'notifications.channels', component: () => import('./pages/notifications/ChannelsTab.vue') },
      { path: 'log', name: 'notifications.log', component: () => import('./pages/notifications/LogTab.vue') },
      { path: 'routing', name: 'notifications.routing', component: () => import('./pages/notifications/RoutingTab.vue') },
      { path: 'silences', name: 'notifications.silences', component: () => import('./pages/notifications/SilencesTab.vue') },
      { path: 'templates', name: 'notifications.templates', component: () => import('./pages/notifications/TemplatesTab.vue') },
    ],
  },
  {
    path: '/notifications/channels/new',
    name: 'notifications.channel.new',
    component: () => import('./pages/notifications/ChannelPage.vue'),
    meta: { permission: 'notify.write', under: '/notifications' },
  },
  {
    path: '/notifications/channels/:id',
    name: 'notifications.channel',
    component: () => import('./pages/notifications/ChannelPage.vue'),
    props: true,
    meta: { permission: 'notify.read', under: '/notifications' },
  },
  {
    path: '/notifications/messages/:id',
    name: 'notifications.message',
    component: () => import('./pages/notifications/MessagePage.vue'),
    props: true,
    meta: { permission: 'notify.read', under: '/notifications' },
  },
  {
    path: '/notifications/templates/new',
    name: 'notifications.template.new',
    component: () => import('./pages/notifications/TemplatePage.vue'),
    meta: { permission: 'notify.write', under: '/notifications' },
  },
  {
    path: '/notifications/templates/:id',
    name: 'notifications.template',
    component: () => import('./pages/notifications/TemplatePage.vue'),
    props: true,
    meta: { permission: 'notify.read', under: '/notifications' },
  },
  { path: '/inbox', name: 'inbox', component: () => import('./pages/inbox/InboxPage.vue') },
  {
    path: '/firmware',
    name: 'firmware',
    component: () => import('./pages/firmware/FirmwarePage.vue'),
    meta: { title: 'firmware.title', icon: IconPackage, group: 'operate', order: 0, permission: 'product.read' },
  },
  {
    path: '/jobs',
    component: () => import('./pages/jobs/JobsPage.vue'),
    meta: { title: 'jobs.title', icon: IconListChecks, group: 'operate', order: 1, permission: 'job.read' },
    children: [
      { path: '', redirect: { name: 'jobs.queues' } },
      { path: 'queues', name: 'jobs.queues', component: () => import('./pages/jobs/QueuesTab.vue') },
      { path: 'operations', name: 'jobs.operations', component: () => import('./pages/jobs/OperationsTab.vue') },
      { path: 'workers', name: 'jobs.workers', component: () => import('./pages/jobs/WorkersTab.vue') },
      { path: 'schedules', name: 'jobs.schedules', component: () => import('./pages/jobs/SchedulesTab.vue') },
      { path: 'quarantine', name: 'jobs.quarantine', component: () => import('./pages/jobs/QuarantineTab.vue') },
    ],
  },
  {
    path: '/jobs/queues/:id',
    name: 'jobs.queue',
    component: () => import('./pages/jobs/QueuePage.vue'),
    props: true,
    meta: { permission: 'job.read', under: '/jobs' },
  },
  {
    path: '/bin',
    name: 'bin',
    component: () => import('./pages/bin/BinPage.vue'),
    meta: { title: 'bin.title', icon: IconTrash, group: 'operate', order: 2, permission: 'device.write', isPrimary: true },
  },
  { path: '/settings', redirect: '/settings/profile' },
  {
    path: '/settings/profile',
    name: 'settings.profile',
    component: () => import('./pages/settings/ProfilePage.vue'),
    meta: { title: 'settings.profile.title', icon: IconUser, group: 'settings', order: 1 },
  },
  {
    path: '/settings/notifications',
    name: 'settings.notifications',
    component: () => import('./pages/settings/NotificationsPage.vue'),
    meta: { title: 'notifications.mine.title', icon: IconInbox, group: 'settings', order: 1 },
  },
  {
    path: '/settings/users',
    name: 'settings.users',
    component: () => import('./pages/settings/UsersPage.vue'),
    meta: { title: 'settings.users.title', icon: IconUsers, group: 'settings', order: 2, permission: 'user.read' },
  },
  {
    path: '/settings/api-keys',
    name: 'settings.apiKeys',
    component: () => import('./pages/settings/ApiKeysPage.vue'),
    meta: { title: 'settings.apiKeys.title', icon: IconKey, group: 'settings', order: 3, permission: 'api-key.write' },
  },
  {
    path: '/settings/mqtt',
    name: 'settings.mqtt',
    component: () => import('./pages/settings/AccessPage.vue'),
    meta: { title: 'settings.access.title', icon: IconPlug, group: 'settings', order: 4, permission: 'settings.read' },
  },
  {
    path: '/settings/system',
    name: 'settings.system',
    component: () => import('./pages/settings/SystemPage.vue'),
    meta: { title: 'settings.system.title', icon: IconServer, group: 'settings', order: 5, permission: 'settings.read' },
  },
  {
    path: '/settings/license',
    name: 'settings.license',
    component: () => import('./pages/license/LicensePage.vue'),
    meta: { title: 'license.title', icon: IconBadge, group: 'settings', order: 5, permission: 'license.read' },
  },
  // Also the place of pages whose module is not unlocked.
  { path: '/:path(.*)*', name: 'notFound', component: () => import('./pages/NotFoundPage.vue') },
]

const reloadedKey = 'iotpms.reloaded'

export function createDashboardRouter(): Router {
  const router = createRouter({ history: createWebHistory(basePath), routes })
  router.beforeEach((to, from) => {
    const session = useSession()
    if (session.isSetupNeeded) return to.name === 'setup' ? true : { name: 'setup', hash: to.hash }
    if (!session.user) {
      return to.name === 'login' || to.name === 'reset'
        ? true
        : { name: 'login', ...(to.path === '/' || to.name === 'setup' ? {} : { query: { return_to: to.fullPath } }) }
    }
    if (to.name === 'login' || (to.name === 'setup' && from.name !== 'setup')) return readReturnTo(to.query['return_to'], baseUrl)
    if (to.path !== from.path) leavePage()
    return true
  })
  // Beside the page's own code, before it is shown.
  router.beforeResolve(async (to) => {
    if (to.meta.isPublic !== true) await loadPageTexts()
  })
  // Going back, the browser itself finds the old place.
  let isBack = false
  addEventListener('popstate', () => (isBack = true))
  router.afterEach((to, from) => {
    sessionStorage.removeItem(reloadedKey)
    if (!isBack && to.path !== from.path) scrollTo(0, 0)
    isBack = false
  })
  // After an upgrade the chunks of the old build are gone: the page is loaded anew, once.
  router.onError((error: unknown, to) => {
    const isChunk = error instanceof TypeError && /import|module/i.test(error.message)
    if (!isChunk || sessionStorage.getItem(reloadedKey)) throw error
    sessionStorage.setItem(reloadedKey, '1')
    location.assign(new URL(to.fullPath.slice(1), document.baseURI))
  })
  return router
}
