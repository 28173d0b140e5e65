// SPDX-License-Identifier: AGPL-3.0-only
import type { Attribute, KeyModel } from '../../api/types.ts'

const prefix = 'model.'

/** What a client attribute `model.<key>` says of a key; undefined for any other attribute. A device may write what it likes there. */
export function readHint({ key, value }: Pick<Attribute, 'key' | 'value'>): [[key: string, model: KeyModel]] | undefined {
  if (!key.startsWith(prefix) || typeof value !== 'object' || value === null) return undefined
  const { title, unit } = value as { title?: unknown; unit?: unknown }
  const { zh, en } = (typeof title === 'object' && title !== null ? title : {}) as { zh?: unknown; en?: unknown }
  const titles = { ...(isLabel(zh, 255) ? { zh } : {}), ...(isLabel(en, 255) ? { en } : {}) }
  const model = { ...(Object.keys(titles).length > 0 ? { title: titles } : {}), ...(isLabel(unit, 32) ? { unit } : {}) }
  return Object.keys(model).length > 0 ? [[key.slice(prefix.length), model]] : undefined
}

function isLabel(value: unknown, maxLength: number): value is string {
  return typeof value === 'string' && value !== '' && value.length <= maxLength
}
