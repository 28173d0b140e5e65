// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import type { Command, Tool } from '../tool.ts'
import { Ledger } from '../ledger.ts'
import { openLedger } from '../tool.ts'
import { codeOf, describeStrength, readRequest } from '../request-file.ts'
import type { Result } from '../terminal.ts'

const dayMs = 86_400_000
const maxAgeDays = 30

export const requestCommands: Record<string, Command> = {
  'request inspect': {
    usage: 'request inspect FILE|-',
    about: { zh: '校验并显示客户的申请文件', en: "verifies and shows a customer's request" },
    positionals: { least: 1, most: 1 },
    run: (tool) => inspect(tool),
  },
}

function inspect(tool: Tool): Result {
  const request = readRequest(tool.args.positionals[0]!)
  const ledger = Ledger.isThere(tool.folder) ? openLedger(tool) : undefined
  const used = ledger?.records.nonces.get(request.nonce)
  const ageDays = (tool.now.getTime() - Date.parse(request.createdAt)) / dayMs
  if (ageDays > maxAgeDays) {
    tool.terminal.note('REQUEST_OLD', { zh: '申请早于 30 天，issue 会拒绝。', en: 'The request is older than 30 days: issue refuses it.' })
  }
  if (ageDays < -1) {
    tool.terminal.note('REQUEST_FUTURE', {
      zh: '申请时间在将来 24 小时以上，issue 会拒绝。',
      en: 'The request is more than 24 h in the future: issue refuses it.',
    })
  }
  if (used) {
    tool.terminal.note('REQUEST_USED', { zh: `此申请已签发过 ${used.jti}。`, en: `This request was answered before with ${used.jti}.` })
  }
  const { strength, text } = describeStrength(request)
  const kinds = request.factors.map((factor) => factor.k)
  const { mode, note, counts, present, prev, createdAt, productVersion } = request
  const shortCode = codeOf(request)
  return {
    json: {
      mode,
      factors: kinds,
      strength,
      counts,
      present,
      prev,
      note,
      createdAt,
      productVersion,
      shortCode,
      answeredBy: used?.jti ?? null,
    },
    lines: [
      { zh: `短码      ${shortCode}（请与客户页面上显示的核对）`, en: `short code  ${shortCode} (compare it with the customer's page)` },
      { zh: `备注      ${note || '—'}`, en: `note        ${note || '—'}` },
      { zh: `生成时间  ${createdAt}，版本 ${productVersion}`, en: `made at     ${createdAt} by version ${productVersion}` },
      { zh: `模式      ${mode}`, en: `mode        ${mode}` },
      { zh: `机器因子  ${kinds.join(' ')}`, en: `factors     ${kinds.join(' ')}` },
      { zh: `绑定强度  ${text.zh}`, en: `strength    ${text.en}` },
      { zh: `数量      ${formatCounts(counts)}`, en: `counts      ${formatCounts(counts)}` },
      { zh: `模块      ${present.join(' ') || '—'}`, en: `modules     ${present.join(' ') || '—'}` },
      {
        zh: `当前许可  ${prev ? `${prev.jti}（序号 ${prev.seq}）` : '—'}`,
        en: `in force    ${prev ? `${prev.jti} (seq ${prev.seq})` : '—'}`,
      },
    ],
  }
}

function formatCounts(counts: object): string {
  return Object.entries(counts)
    .map(([name, value]) => `${name} ${String(value)}`)
    .join(', ')
}
