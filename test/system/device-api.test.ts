// SPDX-License-Identifier: AGPL-3.0-only
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { startTestPlatform } from '@iot-pms/core/testing'
import type { TestPlatform } from '@iot-pms/core/testing'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { CaseRunner } from './device-cases.ts'
import type { Case } from './device-cases.ts'
import { isMatch } from './matches.ts'

const cases = readFileSync(join(import.meta.dirname, 'device-api.jsonl'), 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line) as Case)

let platform: TestPlatform
beforeAll(async () => {
  platform = await startTestPlatform()
})
afterAll(() => platform.close())

describe('device API', () => {
  it.each(cases)('$id: $title', { timeout: 20_000 }, async (one) => {
    await expect(new CaseRunner(platform).run(one)).resolves.toBeUndefined()
  })

  it('notices a wrong expectation: negative control of the runner', async () => {
    const wrong: Case = {
      id: 'X',
      title: '',
      spec: [],
      steps: [
        { do: 'device', as: 'd' },
        { do: 'connect', as: 'c', device: 'd', v: 4, code: 5 },
      ],
    }
    await expect(new CaseRunner(platform).run(wrong)).rejects.toThrow('step 1')
    expect(isMatch({ a: 1 }, { a: 2 })).toBe(false)
    expect(isMatch({ $exact: { a: 1 } }, { a: 1, b: 2 })).toBe(false)
    expect(isMatch({ a: { $absent: true } }, { a: undefined })).toBe(false)
  })
})
