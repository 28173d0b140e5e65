// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { ProblemError, toProblem } from '../errors.ts'
import { Passwords, checkPassword, commonPasswords, findPasswordFaults, needsRehash } from './passwords.ts'

const email = 'linda.chen@example.com'

describe('the rules for passwords [SC-30]', () => {
  it.each([
    ['nine chars', 'x7-Kq2_wZ', ['short']],
    ['129 characters', 'abcdefgh1'.repeat(15).slice(0, 129), ['long']],
    ['a common one', 'Password123', ['common']],
    ['a common one in capitals', 'QWERTYUIOP', ['common']],
    ['digits in a row', '1234567890', ['common']],
    ['the local part of the e-mail', 'my-Linda.Chen-pass', ['email']],
    ['the name of the product', 'our-IoTPMS-server', ['product']],
    ['four different characters', 'abcdabcdabcd', ['monotonous']],
    ['several reasons at once', 'aaaa', ['short', 'monotonous']],
  ])('refuse %s', (_name, password, faults) => {
    expect(findPasswordFaults(password, email)).toEqual(faults)
  })

  it.each([
    ['ten characters', 'x7-Kq2_wZ!'],
    ['128 characters', 'abcdefgh1'.repeat(15).slice(0, 128)],
    ['only lower case words', 'teapot violin gravel'],
    ['Chinese', '床前明月光疑是地上霜'],
    ['emoji, counted as code points', '😀😁😂🤣😃😄😅😆😉😊'],
    ['spaces at both ends', '  x7-Kq2_wZ  '],
  ])('accept %s', (_name, password) => {
    expect(findPasswordFaults(password, email)).toEqual([])
  })

  it('count composed and decomposed letters alike', () => {
    expect(findPasswordFaults('é'.normalize('NFD') + 'x7-Kq2_w', email)).toEqual(['short'])
  })

  it('let the local part pass when it is shorter than four characters', () => {
    expect(findPasswordFaults('x7-bob-q2_wZ', 'bob@example.com')).toEqual([])
  })

  it('answer PASSWORD_WEAK with a sentence per reason in both languages', () => {
    for (const [language, sentence] of [
      ['zh', '密码至少 10 个字符。'],
      ['en', 'A password has at least 10 characters.'],
    ] as const) {
      const error = catchProblem(() => checkPassword('aaaa', email, language))
      const problem = toProblem(error, language, '1')
      expect(problem).toMatchObject({ status: 422, code: 'PASSWORD_WEAK' })
      expect(problem.errors).toHaveLength(2)
      expect(problem.errors?.[0]).toEqual({ pointer: '/password', detail: sentence })
    }
  })

  it('have a committed list of at least 3,000 common passwords that the other rules would let pass', () => {
    const list = [...commonPasswords()]
    expect(list.length).toBeGreaterThanOrEqual(3000)
    expect(list.every((one) => one === one.toLowerCase() && [...one].length >= 10 && new Set(one).size >= 5)).toBe(true)
  })
})

describe('argon2id [SC-31]', () => {
  it('stores a PHC string with 19,456 KiB, 2 passes, 1 lane, 16 bytes of salt and a tag of 32', async () => {
    const phc = await new Passwords().hash('x7-Kq2_wZ!')
    const [, name, version, parameters, salt, tag] = phc.split('$')
    expect([name, version, parameters]).toEqual(['argon2id', 'v=19', 'm=19456,t=2,p=1'])
    expect(Buffer.from(salt!, 'base64')).toHaveLength(16)
    expect(Buffer.from(tag!, 'base64')).toHaveLength(32)
  })

  it('accepts the password in any Unicode form and nothing else', async () => {
    const passwords = new Passwords()
    const phc = await passwords.hash('café-x7-Kq2'.normalize('NFC'))
    expect(await passwords.verify('café-x7-Kq2'.normalize('NFD'), phc)).toBe(true)
    expect(await passwords.verify('cafe-x7-Kq2', phc)).toBe(false)
  })

  it('salts: the same password twice gives two strings', async () => {
    const passwords = new Passwords()
    expect(await passwords.hash('x7-Kq2_wZ!')).not.toBe(await passwords.hash('x7-Kq2_wZ!'))
  })

  it('checks a hash of weaker parameters and asks for a new one', async () => {
    // argon2id of "x7-Kq2_wZ!" with m=8192, t=1, p=1, salt of sixteen bytes 0x07
    const weak = await weakHash('x7-Kq2_wZ!')
    expect(await new Passwords().verify('x7-Kq2_wZ!', weak)).toBe(true)
    expect(needsRehash(weak)).toBe(true)
    expect(needsRehash(await new Passwords().hash('x7-Kq2_wZ!'))).toBe(false)
  })

  it('refuses without a stored hash and with a damaged one', async () => {
    expect(await new Passwords().verify('x7-Kq2_wZ!', null)).toBe(false)
    expect(await new Passwords().verify('x7-Kq2_wZ!', 'plain text')).toBe(false)
  })

  it('lets 64 wait behind 4 and answers the next OVERLOADED with Retry-After 2', async () => {
    const passwords = new Passwords()
    const all = Array.from({ length: 70 }, () => passwords.verify('x7-Kq2_wZ!', null))
    const settled = await Promise.allSettled(all)
    const refused = settled.filter((one) => one.status === 'rejected')
    expect(refused).toHaveLength(2)
    for (const one of refused) expect(one.reason).toMatchObject({ code: 'OVERLOADED', status: 503, retryAfterS: 2 })
    expect(await passwords.verify('x7-Kq2_wZ!', null)).toBe(false)
  })
})

async function weakHash(password: string): Promise<string> {
  const { argon2Sync } = await import('node:crypto')
  const salt = Buffer.alloc(16, 7)
  const tag = argon2Sync('argon2id', { message: password, nonce: salt, parallelism: 1, tagLength: 32, memory: 8192, passes: 1 })
  return `$argon2id$v=19$m=8192,t=1,p=1$${salt.toString('base64').replaceAll('=', '')}$${tag.toString('base64').replaceAll('=', '')}`
}

function catchProblem(work: () => void): ProblemError {
  try {
    work()
  } catch (error) {
    if (error instanceof ProblemError) return error
  }
  throw new Error('nothing was refused')
}
