// SPDX-License-Identifier: AGPL-3.0-only
import type { LicenseEdition, LicenseKind } from './claims.ts'

export type BothLanguages = { zh: string; en: string }
/**
 * What becomes of a feature in RESTRICTED and REVOKED: reads, exports, deletes and disables always stay, changes
 * are refused; this says what becomes of the rest. `keep`: all goes on, with the settings as they are. `readonly`:
 * all goes on but jobs that say otherwise. `stop_new`: jobs stop but those that say otherwise. `off`: all stops.
 */
export type OnExpire = 'keep' | 'readonly' | 'stop_new' | 'off'
export type Feature = { title: BothLanguages; editions: readonly LicenseEdition[]; onExpire: OnExpire; message: BothLanguages }

const withAll: readonly LicenseEdition[] = ['enterprise', 'source', 'saas', 'trial']
/** `standard` holds one of these and nothing else. */
const withVerticals: readonly LicenseEdition[] = ['standard', ...withAll]

/** Features that a license can grant; the only place where these ids stand as data. A module may bring a row of its own. */
export const FEATURES: Readonly<Record<string, Feature>> = {
  retail: {
    title: { zh: '智慧零售', en: 'Retail' },
    editions: withVerticals,
    onExpire: 'readonly',
    message: {
      zh: '零售授权已到期：设备数据、库存扣减与告警继续；可查询、导出、删除，不能新建门店、商品、价格或补货计划。',
      en: 'Retail has expired: device data, stock movements and alarms go on; you can read, export and delete, but not create stores, goods, prices or refill plans.',
    },
  },
  vehicle: {
    title: { zh: '车联网', en: 'Vehicles' },
    editions: withVerticals,
    onExpire: 'readonly',
    message: {
      zh: '车联网授权已到期：已登记终端的接入、定位、轨迹与现有围栏告警继续；不能登记新终端、新建围栏或报表，安全类指令仍可下发。',
      en: 'Vehicles has expired: registered terminals, positions, trips and existing geofence alarms go on; no new terminals, geofences or reports; safety commands still work.',
    },
  },
  finance: {
    title: { zh: '金融风控', en: 'Finance' },
    editions: withVerticals,
    onExpire: 'readonly',
    message: {
      zh: '金融授权已到期：已登记押品的监管、行情更新、估值与预警继续；可查询、导出、删除、登记还款和出库拦截，不能新建授信、押品、租约或行情源。',
      en: 'Finance has expired: supervision of registered collateral, price updates, valuations and warnings go on; you can read, export, delete and record repayments, but not create facilities, collateral, leases or price sources.',
    },
  },
  multi_tenant: {
    title: { zh: '多租户', en: 'Multi-tenant' },
    editions: withAll,
    onExpire: 'keep',
    message: {
      zh: '多租户授权已到期：各租户登录、隔离与数据不变；不能新建租户或修改租户配置。',
      en: 'Multi-tenant has expired: all tenants keep their logins, isolation and data; tenants cannot be created or changed.',
    },
  },
  sso: {
    title: { zh: '单点登录', en: 'Single sign-on' },
    editions: withAll,
    onExpire: 'keep',
    message: {
      zh: '单点登录授权已到期：按现有配置继续登录；配置只读，可停用或删除。',
      en: 'Single sign-on has expired: login goes on with the present settings; they are read-only and can be disabled or deleted.',
    },
  },
  audit: {
    title: { zh: '审计日志', en: 'Audit' },
    editions: withAll,
    onExpire: 'keep',
    message: {
      zh: '审计授权已到期：记录、查询、导出继续；不能修改保留策略或新增转发。',
      en: 'Audit has expired: recording, search and export go on; retention and forwarding cannot be changed.',
    },
  },
  ha: {
    title: { zh: '高可用', en: 'High availability' },
    editions: withAll,
    onExpire: 'keep',
    message: {
      zh: '高可用授权已到期：现有副本与故障切换继续；请勿继续扩容。',
      en: 'High availability has expired: present replicas and fail-over go on; please do not add replicas.',
    },
  },
  analytics: {
    title: { zh: '高级分析', en: 'Analytics' },
    editions: withAll,
    onExpire: 'stop_new',
    message: {
      zh: '分析授权已到期：已有看板与报表可查看、导出；定时报表与新查询停止。',
      en: 'Analytics has expired: existing boards and reports can be read and exported; scheduled reports and new queries stop.',
    },
  },
  billing: {
    title: { zh: '计费', en: 'Billing' },
    editions: withAll,
    onExpire: 'readonly',
    message: {
      zh: '计费授权已到期：计量、现有订阅的账单与收款继续；不能新建套餐、价格或订阅。',
      en: 'Billing has expired: metering, invoices and payments of existing subscriptions go on; no new plans, prices or subscriptions.',
    },
  },
  resource_limit: {
    title: { zh: '资源配额', en: 'Resource limits' },
    editions: withAll,
    onExpire: 'keep',
    message: {
      zh: '资源配额授权已到期：现有配额继续生效；不能修改配额。',
      en: 'Resource limits has expired: present quotas stay in force and cannot be changed.',
    },
  },
  auto_scaling: {
    title: { zh: '自动伸缩', en: 'Auto-scaling' },
    editions: withAll,
    onExpire: 'stop_new',
    message: {
      zh: '自动伸缩授权已到期：保持当前副本数，不再自动调整。',
      en: 'Auto-scaling has expired: the present number of replicas is held and no longer adjusted.',
    },
  },
  costs: {
    title: { zh: '成本分析', en: 'Costs' },
    editions: withAll,
    onExpire: 'stop_new',
    message: {
      zh: '成本分析授权已到期：历史可查看、导出；不再采集新的成本数据。',
      en: 'Costs has expired: history can be read and exported; no new cost data is collected.',
    },
  },
}

type EditionRow = {
  title: BothLanguages
  /** What the issuer puts in unless told otherwise; `one` is one vertical. */
  features: 'none' | 'one' | 'all'
  limits: Readonly<Record<string, number>>
  kind?: LicenseKind
  days?: number
}

const unlimited = { devices: -1, tenants: -1, users: -1, replicas: -1 }

/** Editions for display and for the issuer's defaults. The product itself obeys `features` and `limits` only [L-3]. */
export const EDITIONS: Readonly<Record<LicenseEdition | 'community', EditionRow>> = {
  community: { title: { zh: '社区版', en: 'Community' }, features: 'none', limits: {} },
  standard: {
    title: { zh: '标准版', en: 'Standard' },
    features: 'one',
    limits: { devices: 1000, overage_pct: 10, tenants: 1, replicas: 1 },
  },
  enterprise: { title: { zh: '企业版', en: 'Enterprise' }, features: 'all', limits: unlimited },
  source: { title: { zh: '源码版', en: 'Source' }, features: 'all', limits: unlimited },
  saas: { title: { zh: 'SaaS 版', en: 'SaaS' }, features: 'all', limits: unlimited },
  trial: {
    title: { zh: '试用版', en: 'Trial' },
    features: 'all',
    limits: { devices: 100, overage_pct: 0, tenants: 2, replicas: 3 },
    kind: 'trial',
    days: 30,
  },
}
