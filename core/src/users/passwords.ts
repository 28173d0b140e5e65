// SPDX-License-Identifier: AGPL-3.0-only
import { argon2, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { ProblemError } from '../errors.ts'
import type { Language } from '../errors.ts'
import { isEqual } from '../secrets.ts'

/** [SC-31] */
const parameters = { memory: 19_456, passes: 2, parallelism: 1 }
const saltBytes = 16
const tagBytes = 32
/** Each computation takes 19 MiB and a core for about 30 ms; more at a time would starve the ingest. */
const maxRunning = 4
const maxWaiting = 64

type Parameters = typeof parameters

/** Hashes and checks passwords with argon2id, a bounded number at a time. */
export class Passwords {
  #running = 0
  readonly #waiting: (() => void)[] = []

  /**
   * @returns a PHC string
   * @throws {ProblemError} `OVERLOADED` when 64 computations wait already
   */
  async hash(password: string): Promise<string> {
    const salt = randomBytes(saltBytes)
    const tag = await this.#compute(password, salt, parameters, tagBytes)
    return `$argon2id$v=19$m=${parameters.memory},t=${parameters.passes},p=${parameters.parallelism}$${encode(salt)}$${encode(tag)}`
  }

  /**
   * Compares with a stored PHC string. Without one the same work is done for nothing, so that
   * an unknown account takes as long as a wrong password [SC-34].
   */
  async verify(password: string, phc: string | null): Promise<boolean> {
    const stored = phc === null ? undefined : parsePhc(phc)
    if (!stored) {
      await this.#compute(password, randomBytes(saltBytes), parameters, tagBytes)
      return false
    }
    return isEqual(await this.#compute(password, stored.salt, stored.parameters, stored.tag.length), stored.tag)
  }

  async #compute(password: string, nonce: Buffer, { memory, passes, parallelism }: Parameters, tagLength: number): Promise<Buffer> {
    if (this.#running >= maxRunning) {
      if (this.#waiting.length >= maxWaiting) throw new ProblemError('OVERLOADED', { retryAfterS: 2 })
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
    } else {
      this.#running++
    }
    try {
      return await new Promise<Buffer>((resolve, reject) =>
        argon2('argon2id', { message: password.normalize('NFC'), nonce, parallelism, tagLength, memory, passes }, (error, tag) =>
          error ? reject(error) : resolve(tag),
        ),
      )
    } finally {
      // The place goes to the next in line, or back.
      const next = this.#waiting.shift()
      if (next) next()
      else this.#running--
    }
  }
}

/** Whether a stored hash was made with other parameters than today's and should be made anew. */
export function needsRehash(phc: string): boolean {
  const stored = parsePhc(phc)
  if (!stored) return true
  const { memory, passes, parallelism } = stored.parameters
  return memory !== parameters.memory || passes !== parameters.passes || parallelism !== parameters.parallelism
}

function parsePhc(phc: string): { parameters: Parameters; salt: Buffer; tag: Buffer } | undefined {
  const match = /^\$argon2id\$v=19\$m=(\d{1,7}),t=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)$/.exec(phc)
  if (!match) return undefined
  const [, memory, passes, parallelism, salt, tag] = match
  return {
    parameters: { memory: Number(memory), passes: Number(passes), parallelism: Number(parallelism) },
    salt: Buffer.from(salt!, 'base64'),
    tag: Buffer.from(tag!, 'base64'),
  }
}

/** PHC strings carry base64 without padding. */
function encode(bytes: Buffer): string {
  return bytes.toString('base64').replaceAll('=', '')
}

/** Why a password is refused, one sentence each [SC-30]. */
export const passwordFaults = {
  short: { zh: '密码至少 10 个字符。', en: 'A password has at least 10 characters.' },
  long: { zh: '密码最多 128 个字符。', en: 'A password has at most 128 characters.' },
  common: { zh: '这个密码太常见，容易被猜到。', en: 'This password is so common that it is guessed first.' },
  email: { zh: '密码不能包含邮箱 @ 之前的部分。', en: 'A password must not contain the part of the e-mail before the @.' },
  product: { zh: '密码不能包含 iotpms。', en: 'A password must not contain iotpms.' },
  monotonous: { zh: '密码至少要有 5 个不同的字符。', en: 'A password has at least 5 different characters.' },
} as const
export type PasswordFault = keyof typeof passwordFaults

/** Lengths count code points after NFC; every character is allowed. */
export function findPasswordFaults(password: string, email: string): PasswordFault[] {
  const characters = [...password.normalize('NFC')]
  const folded = characters.join('').toLowerCase()
  const localPart = email.normalize('NFC').toLowerCase().split('@')[0] ?? ''
  const faults: PasswordFault[] = []
  if (characters.length < 10) faults.push('short')
  if (characters.length > 128) faults.push('long')
  if (commonPasswords().has(folded)) faults.push('common')
  if ([...localPart].length >= 4 && folded.includes(localPart)) faults.push('email')
  if (folded.includes('iotpms')) faults.push('product')
  if (new Set(characters).size < 5) faults.push('monotonous')
  return faults
}

/** @throws {ProblemError} `PASSWORD_WEAK` with one entry per reason at `pointer` */
export function checkPassword(password: string, email: string, language: Language, pointer = '/password'): void {
  const faults = findPasswordFaults(password, email)
  if (faults.length > 0) {
    throw new ProblemError('PASSWORD_WEAK', { errors: faults.map((fault) => ({ pointer, detail: passwordFaults[fault][language] })) })
  }
}

let common: Set<string> | undefined

/** Read at the first use: most starts never set a password. */
export function commonPasswords(): ReadonlySet<string> {
  common ??= new Set(
    readFileSync(new URL('./common-passwords.txt', import.meta.url), 'utf8')
      .split('\n')
      .filter((line) => line && !line.startsWith('# ')),
  )
  return common
}
