// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import type { Command, Tool } from '../tool.ts'
import { parseInteger, usageError } from '../arguments.ts'
import type { Result } from '../terminal.ts'
import { formatDay, formatTable, openLedger } from '../tool.ts'
import { isExpiring, toRow } from './ledger.ts'

const usualDays = 60

export const reportCommands: Record<string, Command> = {
  'report expiring': {
    usage: 'report expiring [--within 60d]',
    about: { zh: '列出即将到期、尚未续期的许可证', en: 'lists licenses that end soon and were not renewed' },
    options: { within: 'text' },
    run: (tool) => listExpiring(tool),
  },
  'report customers': {
    usage: 'report customers',
    about: { zh: '每个客户一行：版本、到期日、数量', en: 'one row per customer: edition, end, number of licenses' },
    run: (tool) => listCustomers(tool),
  },
}

function listExpiring(tool: Tool): Result {
  const ledger = openLedger(tool)
  const within = tool.args.text('within')
  if (within !== undefined && !/^\d{1,5}d$/.test(within)) throw usageError('--within 的形式为 60d', '--within has the form 60d')
  const days = within === undefined ? usualDays : parseInteger(within.slice(0, -1), '--within')
  const seconds = tool.now.getTime() / 1000
  const tokens = [...ledger.records.tokens.values()]
  const renewed = new Set(tokens.filter((token) => token.payload !== undefined && !token.revoked).map((token) => token.claims.prev))
  const rows = tokens
    .filter((token) => isExpiring(token, seconds, days) && !renewed.has(token.jti))
    .sort((a, b) => a.claims.exp - b.claims.exp)
    .map((token) => {
      const { jti, customer, edition, until } = toRow(token, seconds)
      return { until, days: Math.floor((token.claims.exp - seconds) / 86_400), customer, name: token.claims.cust?.name ?? '', edition, jti }
    })
  return {
    json: { days, licenses: rows },
    lines: formatTable([['until', 'days', 'customer', 'name', 'edition', 'jti'], ...rows.map((row) => Object.values(row).map(String))]),
  }
}

function listCustomers(tool: Tool): Result {
  const ledger = openLedger(tool)
  const tokens = [...ledger.records.tokens.values()].filter((token) => token.payload !== undefined)
  const rows = [...ledger.records.customers.values()].map(({ sub, name, seq }) => {
    const own = tokens.filter((token) => token.claims.sub === sub)
    const newest = own.filter((token) => !token.revoked).sort((a, b) => b.claims.seq - a.claims.seq)[0]
    return {
      customer: sub,
      name,
      licenses: own.length,
      revoked: own.filter((token) => token.revoked).length,
      seq,
      edition: newest?.claims.edition ?? null,
      until: newest ? formatDay(newest.claims.exp) : null,
    }
  })
  return {
    json: { customers: rows },
    lines: formatTable([
      ['customer', 'name', 'licenses', 'revoked', 'seq', 'edition', 'until'],
      ...rows.map((row) => Object.values(row).map((value) => String(value ?? ''))),
    ]),
  }
}
