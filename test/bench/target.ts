// SPDX-License-Identifier: AGPL-3.0-only
import postgres from 'postgres'
import { findRunningDatabase } from '../../core/src/db/embedded.ts'
import { Installation } from '../faults/installation.ts'
import type { LoadFigures } from './load.ts'
import { countSince, readStored } from './stored.ts'

/** A message of five values. */
export const payload = '{"temperature":21.5,"humidity":60.2,"pressure":1013.25,"voltage":3.61,"current":0.125}'

/** A server with devices, and its database to count in. */
export type Target = {
  installation: Installation
  adminUrl: string
  sql: postgres.Sql
  userNames: string[]
  deviceIds: string[]
  /** Runs a load of less than a minute; what was acknowledged has to be stored. */
  runChecked<T extends LoadFigures>(run: () => Promise<T>): Promise<T>
  stop(): Promise<void>
}

export async function startTarget(name: string, devices: number): Promise<Target> {
  const installation = new Installation({ name, environment: { IOT_PMS_CONNECT_RATE: '100000' } })
  try {
    await installation.start()
    await installation.openApi()
    const created = await installation.createDevices(devices)
    const { adminUrl } = (await findRunningDatabase(installation.dataDir))!
    const sql = postgres(adminUrl, { max: 1, onnotice: () => {} })
    return {
      installation,
      adminUrl,
      sql,
      userNames: created.map((device) => device.token),
      deviceIds: created.map((device) => device.id),
      async runChecked(run) {
        const before = await readStored(sql)
        const figures = await run()
        const stored = countSince(before, await readStored(sql))
        if (stored !== figures.ackedInAll) throw new Error(`${figures.ackedInAll} messages were acknowledged, ${stored} are stored`)
        return figures
      },
      async stop() {
        await sql.end()
        await installation.dispose(false)
      },
    }
  } catch (error) {
    await installation.dispose(false)
    throw error
  }
}
