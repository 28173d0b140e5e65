// SPDX-License-Identifier: AGPL-3.0-only
import { Gauge } from 'prom-client'
import type { Registry } from 'prom-client'
import type { LicenseService } from './license.ts'

const states = ['COMMUNITY', 'TRIAL', 'ACTIVE', 'EXPIRING', 'GRACE', 'MISMATCH', 'RESTRICTED', 'REVOKED', 'INVALID']

/** [L-104] */
export function watchLicense(registry: Registry, license: LicenseService): void {
  const registers = [registry]
  new Gauge({
    name: 'iot_pms_license_state',
    help: '1 for the state of the license, 0 for the others',
    labelNames: ['state'],
    registers,
    collect() {
      for (const state of states) this.set({ state }, license.get().state === state ? 1 : 0)
    },
  })
  new Gauge({
    name: 'iot_pms_license_expires_seconds',
    help: 'When the license in force ends, in seconds since 1970; 0 without one',
    registers,
    collect() {
      this.set(license.get().inForce?.claims.exp ?? 0)
    },
  })
  new Gauge({
    name: 'iot_pms_license_limit',
    help: 'Limits of the license; -1 is none',
    labelNames: ['name'],
    registers,
    collect() {
      for (const name of ['devices', 'tenants', 'users', 'replicas'] as const) this.set({ name }, license.limit(name))
    },
  })
  new Gauge({
    name: 'iot_pms_license_used',
    help: 'What counts against a limit of the license',
    labelNames: ['name'],
    registers,
    collect() {
      this.set({ name: 'devices' }, license.get().devices.used)
    },
  })
  new Gauge({
    name: 'iot_pms_license_refused_total',
    help: 'Requests and licenses refused for a reason of the license',
    labelNames: ['code'],
    registers,
    collect() {
      for (const [code, count] of license.refused) this.set({ code }, count)
    },
  })
}
