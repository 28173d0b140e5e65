// SPDX-License-Identifier: AGPL-3.0-only
import { readError } from '../../api/errors.ts'
import { urlOf } from '../../base.ts'

/** One test point over the device's own HTTP address, as the device would send it [D-60]. */
export async function sendTest(token: string, key: string): Promise<void> {
  const value = Math.round(200 + Math.random() * 100) / 10
  const response = await fetch(urlOf(`api/v1/${encodeURIComponent(token)}/telemetry`), {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ [key]: value }),
    credentials: 'omit',
  })
  if (!response.ok) throw await readError(response)
}
