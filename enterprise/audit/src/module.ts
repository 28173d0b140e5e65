// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { defineModule } from '@iot-pms/core'
import { partsOf } from './parts.ts'
import { applyRetention } from './retention.ts'
import { registerAuditRoutes } from './routes.ts'

/** Found in every build that holds this module's code, and in no other. */
export const canary = 'IOT-PMS-CANARY-b1e94c7d20a84f63958e0dd3c47f6a12'

/** The table of contents: who did what, in chains that show every later change. */
export default defineModule({
  name: 'audit',
  permissions: { 'audit.read': 'admin', 'audit.export': 'admin', 'audit.write': 'admin' },
  errors: {
    AUDIT_RANGE: {
      status: 422,
      zh: '时间范围不合法：起点须早于终点，且不超过 3660 天。',
      en: 'The range is not valid: from before to, at most 3,660 days.',
    },
    AUDIT_RETENTION_MIN: { status: 422, zh: '审计记录至少保留 180 天。', en: 'Audit records are kept for at least 180 days.' },
    AUDIT_SINK_ADDRESS: { status: 422, zh: '外送地址不被允许。', en: 'This address is not allowed for a sink.' },
    AUDIT_EXPORT_TOO_LARGE: {
      status: 413,
      zh: '导出条数过多（{count}，上限 {limit}），请缩小范围。',
      en: 'Too many events for one file ({count}, at most {limit}); ask for a smaller range.',
    },
  },
  routes: (context) => registerAuditRoutes(partsOf(context)),
  seams: (context) => [context.seams.auditSinks.add(partsOf(context).recorder)],
  // In a license that has run out nothing is deleted, everything else goes on [AU-4].
  jobs: [{ name: 'retention', onExpire: 'stop', run: (context, tenant) => applyRetention(partsOf(context), tenant) }],
  start: (context) => partsOf(context).keeper.start(),
  stop: (context) => partsOf(context).keeper.stop(),
})
