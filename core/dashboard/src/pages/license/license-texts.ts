// SPDX-License-Identifier: AGPL-3.0-only
import { useI18n } from 'vue-i18n'
import type { License, LicenseChange, LicenseFeature } from '../../api/types.ts'
import { useFormat } from '../../composables/use-format.ts'

/** How serious a state is, as a tag shows it [L-120]. */
export const stateTags: Readonly<Record<string, '' | 'ok' | 'accent' | 'warn' | 'danger'>> = {
  COMMUNITY: '',
  ACTIVE: 'ok',
  TRIAL: 'accent',
  EXPIRING: 'warn',
  GRACE: 'warn',
  MISMATCH: 'warn',
  RESTRICTED: 'danger',
  REVOKED: 'danger',
  INVALID: 'danger',
}

/** What to do about a refusal [D-68]; a code that is not here is explained by its own sentence. */
const steps: Readonly<Record<string, string>> = {
  LIC_SIZE: 'resend',
  LIC_MALFORMED: 'resend',
  LIC_TYP: 'resend',
  LIC_ALG: 'vendor',
  LIC_HEADER_FORBIDDEN: 'vendor',
  LIC_KID_MISSING: 'vendor',
  LIC_KID_UNKNOWN: 'vendor',
  LIC_SIGNATURE: 'resend',
  LIC_VERSION: 'upgrade',
  LIC_ISS: 'vendor',
  LIC_AUD: 'vendor',
  LIC_CRIT: 'upgrade',
  LIC_CLAIM_MISSING: 'reissue',
  LIC_CLAIM_TYPE: 'reissue',
  LIC_ENV: 'environment',
  LIC_TERM_TOO_LONG: 'reissue',
  LIC_CLOCK: 'clock',
  LIC_KEY_REVOKED: 'request',
  LIC_REVOKED: 'request',
  LIC_CRL_REQUIRED: 'crl',
  LIC_SUPERSEDED: 'newest',
  CRL_SIZE: 'resend',
  CRL_MALFORMED: 'resend',
  CRL_TYP: 'resend',
  CRL_ALG: 'vendor',
  CRL_HEADER_FORBIDDEN: 'vendor',
  CRL_KEY: 'vendor',
  CRL_SIGNATURE: 'resend',
  CRL_CLAIM: 'reissue',
  CRL_CLOCK: 'clock',
  CRL_STALE: 'newest',
}

export function stepOf(code: string): string | undefined {
  return steps[code]
}

/** The words of the license page. */
export function useLicenseTexts() {
  const i18n = useI18n()
  const { t } = i18n
  const format = useFormat()
  /** A word of ours, or what the server said where we have none. */
  const word = (key: string, given: string) => (i18n.te(key) ? t(key) : given)
  const edition = (id: string) => word(`license.edition.${id}`, id)
  const kind = (id: string) => word(`license.kind.${id}`, id)
  const factor = (k: string) => word(`license.factor.${k}`, k)
  const both = (title: { zh: string; en: string }) => title[format.language.value]
  const limit = (value: number) => (value === -1 ? t('license.unlimited') : format.number(value))

  /** The state in words, what follows and from when on. */
  function sentence({ state, license, kind: licenseKind }: License): string {
    const instant = (at: string | null | undefined) => (at ? format.instant(at) : '—')
    const name = state === 'EXPIRING' && licenseKind === 'trial' ? 'EXPIRING_TRIAL' : state
    return t(`license.sentence.${name}`, {
      end: instant(license?.expiresAt),
      graceEnd: instant(license?.graceEndsAt),
      restricted: instant(license?.restrictedAt),
    })
  }

  function featureState(feature: LicenseFeature, state: string): { word: string; tag: string } {
    const isEnding = state === 'EXPIRING' || state === 'GRACE'
    if (feature.status === 'absent') {
      return { word: t(feature.granted ? 'license.features.state.grantedAbsent' : 'license.features.state.absent'), tag: '' }
    }
    const name = feature.status === 'active' && isEnding ? 'expiring' : feature.status
    const tags: Record<string, string> = { active: 'ok', expiring: 'warn', readonly: 'warn', failed: 'danger', starting: 'accent' }
    return { word: t(`license.features.state.${name}`), tag: tags[name] ?? '' }
  }

  /** One difference as a sentence [L-72]; the page knows titles of modules that the license does not. */
  function change(one: LicenseChange, features: readonly LicenseFeature[]): string {
    const text = (name: string) => String(one[name] ?? '')
    const number = (name: string) => (text('limit') === 'overage_pct' ? `${text(name)} %` : limit(Number(one[name])))
    const title = features.find(({ id }) => id === one['feature'])?.title
    switch (one.change) {
      case 'FEATURE_ADDED':
      case 'FEATURE_REMOVED':
        return t(`license.change.${one.change}`, { feature: title ? both(title) : text('feature') })
      case 'LIMIT_RAISED':
      case 'LIMIT_LOWERED': {
        const hasUse = one.change === 'LIMIT_LOWERED' && typeof one['used'] === 'number'
        return t(hasUse ? 'license.change.LIMIT_LOWERED_USED' : `license.change.${one.change}`, {
          limit: word(`license.limitName.${text('limit')}`, text('limit')),
          from: number('from'),
          to: number('to'),
          used: hasUse ? format.number(Number(one['used'])) : '',
        })
      }
      case 'EXPIRES_LATER':
      case 'EXPIRES_EARLIER':
        return t(`license.change.${one.change}`, { from: format.instant(text('from')), to: format.instant(text('to')) })
      case 'EDITION_CHANGED':
        return t('license.change.EDITION_CHANGED', { from: edition(text('from')), to: edition(text('to')) })
      case 'KIND_CHANGED':
        return t('license.change.KIND_CHANGED', { from: kind(text('from')), to: kind(text('to')) })
      case 'CUSTOMER_CHANGED':
        return t('license.change.CUSTOMER_CHANGED', { from: text('from'), to: text('to') })
      case 'STATE_AFTER': {
        const kinds = Array.isArray(one['kinds']) ? one['kinds'].map((k) => factor(String(k))).join(', ') : ''
        return t(`license.change.STATE_${text('state')}`, { matched: text('matched'), total: text('total'), min: text('min'), kinds })
      }
      default:
        return one.change
    }
  }

  return { edition, kind, factor, both, limit, sentence, featureState, change, word }
}
