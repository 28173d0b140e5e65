// SPDX-License-Identifier: AGPL-3.0-only
import type { RouteIds } from './routes.ts'

/** Calls the REST API as an administrator. */
type Call = (method: string, path: string, body: unknown) => Promise<unknown>

/** Channels, a message and something in the inbox, a silence, a template, a rule, an alarm, a schedule. */
export async function fillNotifications(call: Call): Promise<RouteIds> {
  const post = async (path: string, body: unknown) => (await call('POST', `/api/v1/notifications${path}`, body)) as { id: string }
  const inbox = await post('/channels', { name: 'Walked inbox', type: 'inapp', config: {} })
  const robot = { server: 'http://192.0.2.1', appToken: 'walked-token-1234' }
  await post('/channels', { name: 'Walked server', type: 'gotify', config: robot, enabled: false })
  await post(`/channels/${inbox.id}/test`, {})
  const message = await post('/messages', { to: { channelId: inbox.id }, title: 'Walked', text: '**-3.1** °C', priority: 'high' })
  await post('/escalations', { name: 'Walked', steps: [{ afterMs: 900_000, targets: [{ channelId: inbox.id }] }], repeat: 2 })
  await call('PUT', '/api/v1/notifications/routing', {
    route: {
      receiver: 'Walked',
      escalation: 'Walked',
      groupBy: ['rule_id'],
      routes: [
        { matchers: ['severity="critical"', 'group=~"cold.*"'], receiver: 'Night', groupWaitMs: 5000, continue: true },
        { matchers: ['severity!="warning"'], activeIntervals: ['work'], routes: [{ matchers: ['device_id="1"'], receiver: 'Night' }] },
      ],
    },
    inhibit: [{ source: ['severity="critical"'], target: ['severity="minor"'], equal: ['device_id'] }],
    intervals: { work: [{ weekdays: ['mon:fri'], times: [{ from: '09:00', to: '18:00' }], zone: 'Asia/Shanghai' }] },
    receivers: [
      { name: 'Walked', sendResolved: true, targets: [] },
      { name: 'Night', targets: [{ channelId: inbox.id }], fallback: [[{ channelId: inbox.id }]], fallbackAfterMs: 60_000 },
    ],
  })
  const now = Date.now()
  await post('/silences', {
    matchers: ['severity="warning"', 'group=~"cold.*"'],
    startsAt: new Date(now).toISOString(),
    endsAt: new Date(now + 86_400_000).toISOString(),
    comment: 'Walked',
  })
  const template = await post('/templates', {
    name: 'walked',
    locales: { zh: { title: '{{ name }}', body: '**{{ name }}**' }, en: { body: '{{ name }}' } },
    example: { name: 'Ada' },
  })
  await call('PATCH', `/api/v1/notifications/templates/${template.id}`, { example: { name: 'Bo' } })
  const device = (await call('POST', '/api/v1/devices', { name: 'alarmed' })) as { id: string }
  const leaf = { left: { key: 'temperature' }, op: 'gt', right: -12, hysteresis: 2 }
  const rule = (await call('POST', '/api/v1/rules', {
    kind: 'alarm',
    name: 'Walked',
    target: { deviceIds: [device.id] },
    levels: [{ severity: 'critical', when: leaf, forMs: 300_000 }],
    actions: [{ on: ['raised', 'cleared'], type: 'notify' }],
  })) as { id: string }
  const wanted = { deviceId: device.id, type: 'door', severity: 'major', title: 'Walked' }
  const alarm = (await call('POST', '/api/v1/alarms', wanted)) as { id: string }
  await call('POST', `/api/v1/alarms/${alarm.id}/comments`, { comment: 'Walked' })
  const schedule = { name: 'Walked', queue: 'notify-drain', cron: '0 8 * * 1', data: { channelId: inbox.id } }
  await call('POST', '/api/v1/schedules', schedule)
  return {
    '/alarms/': alarm.id,
    '/rules/': rule.id,
    '/jobs/queues/': 'notify-send',
    '/notifications/channels/': inbox.id,
    '/notifications/messages/': message.id,
    '/notifications/templates/': template.id,
  }
}
