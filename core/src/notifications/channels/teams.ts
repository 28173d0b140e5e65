// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { ProblemError } from '../../errors.ts'
import { jsonHeaders, str } from '../channel-type.ts'
import type { HttpChannelType } from '../channel-type.ts'
import { byStatus, sent, unknown, withWords } from '../outcome.ts'

const hosts = /(^|\.)(logic\.azure\.com|environment\.api\.powerplatform\.com)$/

/** Lines as TextRuns: their text is never parsed for marks. `**bold**` of the dialect becomes a run of its own. */
function paragraph(line: string) {
  const runs = line.split(/(\*\*[^*]+\*\*)/).filter(Boolean)
  const inlines = runs.map((run) =>
    run.startsWith('**') ? { type: 'TextRun', text: run.slice(2, -2), weight: 'Bolder' } : { type: 'TextRun', text: run },
  )
  return { type: 'RichTextBlock', inlines: inlines.length > 0 ? inlines : [{ type: 'TextRun', text: ' ' }] }
}

export const teams: HttpChannelType = {
  type: 'teams',
  title: { zh: 'Microsoft Teams', en: 'Microsoft Teams' },
  config: Type.Object({ url: Type.String({ pattern: '^https://\\S+$', maxLength: 2000 }) }, { additionalProperties: false }),
  secrets: ['url'],
  rates: [{ count: 4, perMs: 1000 }],
  dialect: 'teams',
  limit: { unit: 'bytes', markdown: 20_000, text: 20_000 },
  check(config) {
    const url = URL.parse(str(config, 'url'))
    if (url && /(^|\.)webhook\.office\.com$/.test(url.hostname)) {
      throw new ProblemError('CHANNEL_RETIRED', {
        errors: [{ pointer: '/config/url', detail: 'Make a webhook of Workflows and paste its address.' }],
      })
    }
    if (!url || !hosts.test(url.hostname) || !url.searchParams.has('sig')) {
      throw new ProblemError('CHANNEL_URL_INVALID', { params: { host: '*.logic.azure.com, *.environment.api.powerplatform.com' } })
    }
    return []
  },
  build(message, config, at) {
    const own = new URL(str(config, 'url'))
    const card = {
      $schema: 'http://adaptivecards.io/schemas/adaptive-card.json',
      type: 'AdaptiveCard',
      version: '1.4',
      body: [
        ...(message.title
          ? [{ type: 'TextBlock', text: message.title.replace(/[*_[\]]/g, '\\$&'), weight: 'Bolder', size: 'Medium', wrap: true }]
          : []),
        ...message.text.split('\n').map(paragraph),
      ],
      actions: message.links.map((link) => ({ type: 'Action.OpenUrl', title: link.label, url: link.url })),
      msteams: { width: 'Full' },
    }
    const body = {
      type: 'message',
      attachments: [{ contentType: 'application/vnd.microsoft.card.adaptive', contentUrl: null, content: card }],
    }
    return {
      method: 'POST',
      url: at.base('teams', own.origin) + own.pathname + own.search,
      headers: jsonHeaders,
      body: JSON.stringify(body),
    }
  },
  classify(reply, at) {
    if (reply.status === 200 || reply.status === 202) return sent()
    return withWords(byStatus(reply, at) ?? unknown(`http_${reply.status}`), reply.status, reply.body.slice(0, 300))
  },
}
