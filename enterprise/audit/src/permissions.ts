// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { modulePermission } from '@iot-pms/core'

export const canRead = { permission: modulePermission('audit.read') }
/** Reading, exporting and verifying stay when the license has run out [AU-4]. */
export const canExport = { permission: modulePermission('audit.export'), license: 'always' } as const
export const canWrite = { permission: modulePermission('audit.write') }
