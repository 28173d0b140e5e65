// SPDX-License-Identifier: AGPL-3.0-only
import { useI18n } from 'vue-i18n'
import { useQueryCache } from '@pinia/colada'
import { bin, devices } from '../../api/calls.ts'
import { keys } from '../../api/keys.ts'
import type { Device } from '../../api/types.ts'
import { showError } from '../../composables/use-toasts.ts'
import { useUndo } from '../../composables/use-undo.ts'

/** What can be done with a device from more than one place. */
export function useDeviceActs() {
  const { t } = useI18n()
  const cache = useQueryCache()
  const offerUndo = useUndo()

  async function renew(id: string): Promise<void> {
    await Promise.all([keys.devices(), keys.device(id), keys.overview(), keys.bin()].map((key) => cache.invalidateQueries({ key })))
  }

  /** Into the bin, without asking; back again by undo [D-49]. */
  async function remove(device: Pick<Device, 'id' | 'name'>, after: () => Promise<void> | void): Promise<void> {
    try {
      await devices.delete(device.id)
      offerUndo(t('devices.deleted', { name: device.name }), async () => {
        await bin.restore([device.id])
        await renew(device.id)
        await after()
      })
      await renew(device.id)
      await after()
    } catch (error) {
      showError(error)
    }
  }

  async function setDisabled(device: Pick<Device, 'id'>, disabled: boolean): Promise<void> {
    try {
      await devices.update(device.id, { disabled })
      await renew(device.id)
    } catch (error) {
      showError(error)
    }
  }

  return { remove, setDisabled, renew }
}
