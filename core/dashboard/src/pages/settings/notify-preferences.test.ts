// SPDX-License-Identifier: AGPL-3.0-only
import { expect, it } from 'vitest'
import { blankQuiet, fromPreferences, toPreferences } from './notify-preferences.ts'

it('says nothing where nothing was chosen', () => {
  expect(toPreferences(fromPreferences({}), {})).toEqual({})
})

it('keeps what it has no field for', () => {
  const stored = {
    order: { '1': ['sms' as const] },
    zone: 'Asia/Tokyo',
    topics: { device_offline: { email: false }, alarm: { inapp: false } },
  }
  expect(toPreferences(fromPreferences(stored), stored)).toEqual(stored)
})

it('writes what is switched off, and takes it back', () => {
  const form = fromPreferences({})
  form.topics.alarm.sms = false
  const saved = toPreferences(form, {})
  expect(saved).toEqual({ topics: { alarm: { sms: false } } })
  const again = fromPreferences(saved)
  again.topics.alarm.sms = true
  expect(toPreferences(again, saved)).toEqual({})
})

it('names days of quiet hours only where they are not all', () => {
  const form = { ...fromPreferences({}), quiet: { ...blankQuiet, days: ['sat'] } }
  expect(toPreferences(form, {}).quietHours).toEqual({ from: '22:00', to: '07:00', mode: 'hold', breakThrough: 1, days: ['sat'] })
  expect(toPreferences({ ...form, quiet: { ...blankQuiet } }, {}).quietHours?.days).toBeUndefined()
})
