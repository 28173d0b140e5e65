// SPDX-License-Identifier: AGPL-3.0-only

/** What one check says; `fix` is what to do, empty where there is nothing. */
export type Finding = { name: string; status: 'OK' | 'WARN' | 'FAIL'; finding: string; fix: string }

export const ok = (name: string, finding: string): Finding => ({ name, status: 'OK', finding, fix: '' })
export const warn = (name: string, finding: string, fix: string): Finding => ({ name, status: 'WARN', finding, fix })
export const fail = (name: string, finding: string, fix: string): Finding => ({ name, status: 'FAIL', finding, fix })

/** A check that ends with an error has found something, too. */
export async function attempt(name: string, fix: string, check: () => Promise<Finding[]> | Finding[]): Promise<Finding[]> {
  try {
    return await check()
  } catch (error) {
    return [fail(name, (error as Error).message.replace(/\.$/, ''), (error as { hint?: string }).hint ?? fix)]
  }
}
