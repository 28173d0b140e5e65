// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { ProblemError } from '../../errors.ts'
import { jsonHeaders, str } from '../channel-type.ts'
import type { HttpChannelType } from '../channel-type.ts'
import { byStatus, sent, unknown, withWords } from '../outcome.ts'

const hosts = /(^|\.)(logic\.azure\.com|environment\.api\.powerplatform\.com)$/

/** A line as TextRuns, whose text is never parsed for marks: what is bold, a link or code stands in the entities. */
function paragraph(line: string, start: number, entities: readonly Record<string, unknown>[]) {
  const end = start + line.length
  const ranges = entities.map((one) => ({
    type: one['type'],
    url: one['url'],
    from: Number(one['offset']),
    to: Number(one['offset']) + Number(one['length']),
  }))
  const edges = [start, end, ...ranges.flatMap((one) => [one.from, one.to])].filter((edge) => edge >= start && edge <= end)
  const points = [...new Set(edges)].sort((a, b) => a - b)
  const inlines = points.slice(0, -1).map((from, index) => {
    const to = points[index + 1]!
    const inside = ranges.filter((one) => one.from <= from && one.to >= to)
    const link = inside.find((one) => one.type === 'text_link')
    return {
      type: 'TextRun',
      text: line.slice(from - start, to - start),
      ...(inside.some((one) => one.type === 'bold') ? { weight: 'Bolder' } : {}),
      ...(inside.some((one) => one.type === 'italic') ? { italic: true } : {}),
      ...(inside.some((one) => one.type === 'strikethrough') ? { strikethrough: true } : {}),
      ...(inside.some((one) => one.type === 'code' || one.type === 'pre') ? { fontType: 'Monospace' } : {}),
      ...(link ? { selectAction: { type: 'Action.OpenUrl', url: link.url } } : {}),
    }
  })
  return { type: 'RichTextBlock', inlines: inlines.length > 0 ? inlines : [{ type: 'TextRun', text: ' ' }] }
}

function paragraphs(text: string, entities: readonly Record<string, unknown>[]) {
  let start = 0
  return text.split('\n').map((line) => {
    const made = paragraph(line, start, entities)
    start += line.length + 1
    return made
  })
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
        ...paragraphs(message.text, message.entities ?? []),
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
