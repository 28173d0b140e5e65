// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { IconActivity, defineDashboardModule } from '@iot-pms/core/dashboard'

const permission = 'audit.read'

/** The pages of audit: one entry in the menu, a tab for each part. */
export default defineDashboardModule({
  name: 'audit',
  pages: [
    {
      path: '/audit/events',
      name: 'audit.events',
      title: 'audit.title',
      permission,
      group: 'settings',
      icon: IconActivity,
      component: () => import('./EventsPage.vue'),
    },
    {
      path: '/audit/integrity',
      name: 'audit.integrity',
      title: 'audit.integrity.title',
      permission,
      under: '/audit/events',
      component: () => import('./IntegrityPage.vue'),
    },
    {
      path: '/audit/sinks',
      name: 'audit.sinks',
      title: 'audit.sinks.title',
      permission,
      under: '/audit/events',
      component: () => import('./SinksPage.vue'),
    },
    {
      path: '/audit/retention',
      name: 'audit.retention',
      title: 'audit.retention.title',
      permission,
      under: '/audit/events',
      component: () => import('./RetentionPage.vue'),
    },
  ],
  messages: {
    zh: async () => (await import('./i18n/zh.json')).default,
    en: async () => (await import('./i18n/en.json')).default,
  },
  canary: 'IOT-PMS-CANARY-b1e94c7d20a84f63958e0dd3c47f6a12',
})
