// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial

/** A sentence in both languages. */
export type Text = { zh: string; en: string }

/** Exit codes; scripts depend on them, none is ever given another meaning. */
export const exits = {
  ok: 0,
  unexpected: 1,
  usage: 2,
  input: 3,
  verification: 4,
  time: 5,
  machine: 6,
  revoked: 7,
  key: 8,
  ledger: 9,
  policy: 10,
  partial: 11,
  interrupted: 130,
} as const

/** Every code a caller can act on, and how the process then ends. */
const codes = {
  UNEXPECTED: exits.unexpected,
  ACCESS_DENIED: exits.unexpected,
  NOT_OFFLINE: exits.unexpected,
  FILE_WRITE: exits.unexpected,
  USAGE: exits.usage,
  FILE_EXISTS: exits.usage,
  OUTPUT_FOLDER: exits.usage,
  LEDGER_EXISTS: exits.usage,
  KEY_AMBIGUOUS: exits.usage,
  CONFIRMATION_NEEDED: exits.usage,
  NOT_CONFIRMED: exits.usage,
  BULK_REPORT_EXISTS: exits.usage,
  FILE_UNREADABLE: exits.input,
  FILE_TOO_LARGE: exits.input,
  REQUEST_INVALID: exits.input,
  RECEIPT_INVALID: exits.input,
  BULK_INVALID: exits.input,
  TOKEN_INVALID: exits.input,
  CRL_INVALID: exits.input,
  JTI_UNKNOWN: exits.input,
  REQUEST_SIGNATURE: exits.verification,
  RECEIPT_SIGNATURE: exits.verification,
  TOKEN_REFUSED: exits.verification,
  TOKEN_SIGNATURE: exits.verification,
  CRL_SIGNATURE: exits.verification,
  TOKEN_TIME: exits.time,
  TOKEN_MACHINE: exits.machine,
  TOKEN_REVOKED: exits.revoked,
  KEY_PASSPHRASE: exits.key,
  KEY_PASSPHRASE_MISSING: exits.key,
  KEY_PASSPHRASE_WEAK: exits.key,
  KEY_FILE: exits.key,
  KEY_MISSING: exits.key,
  KEY_PLAIN: exits.key,
  LEDGER_MISSING: exits.ledger,
  LEDGER_BROKEN: exits.ledger,
  LEDGER_LOCKED: exits.ledger,
  LEDGER_WRITE: exits.ledger,
  POLICY: exits.policy,
  BULK_PARTIAL: exits.partial,
  INTERRUPTED: exits.interrupted,
} as const

export type Code = keyof typeof codes

/** What the caller can act on: a stable code, an exit code and one sentence; never a stack, never a secret. */
export class ToolError extends Error {
  readonly code: Code
  readonly exit: number
  readonly text: Text
  readonly details: Record<string, unknown>

  constructor(code: Code, text: Text, details: Record<string, unknown> = {}) {
    super(text.en)
    this.code = code
    this.exit = codes[code]
    this.text = text
    this.details = details
  }
}

/** The system's own code of an error, such as ENOENT. */
export function systemCode(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : ''
}
