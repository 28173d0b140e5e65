// SPDX-License-Identifier: AGPL-3.0-only
import { completeRule } from './schemas.ts'
import type { Preset, RuleInput } from './schemas.ts'

function preset(id: string, topics: string[], rules: RuleInput[], example: Preset['example']): Preset {
  return { id, topics, rules: rules.map(completeRule), example }
}

/** Mappings to begin with; what is taken over from one is the connector's own from then on. */
export const presets: readonly Preset[] = [
  // Topics and members of ChirpStack's MQTT integration, JSON encoding, version 4.
  preset(
    'chirpstack',
    ['application/+/device/+/event/up', 'application/+/device/+/event/status'],
    [
      {
        topic: 'application/+/device/+/event/up',
        name: '{topic.4}',
        product: '{payload.deviceInfo.deviceProfileName}',
        members: 'object',
        flatten: true,
        values: [{ path: 'rxInfo.0.rssi' }, { path: 'rxInfo.0.snr' }, { path: 'fPort' }, { path: 'fCnt' }, { path: 'dr' }],
        time: { path: 'time', unit: 'iso' },
      },
      {
        topic: 'application/+/device/+/event/status',
        name: '{topic.4}',
        product: '{payload.deviceInfo.deviceProfileName}',
        members: null,
        values: [{ path: 'batteryLevel' }, { path: 'margin' }, { path: 'externalPowerSource' }],
        time: { path: 'time', unit: 'iso' },
      },
    ],
    {
      topic: 'application/4f2b/device/24e124136b502217/event/up',
      payload:
        '{"time":"2026-03-01T08:15:30.123456+00:00","deviceInfo":{"deviceProfileName":"EM300-TH","deviceName":"cold room 3"},"fPort":85,"fCnt":12,"object":{"temperature":4.6,"humidity":71.5},"rxInfo":[{"rssi":-97,"snr":7.2}]}',
    },
  ),
  preset(
    'zigbee2mqtt',
    ['zigbee2mqtt/+', 'zigbee2mqtt/+/availability'],
    [
      { topic: 'zigbee2mqtt/bridge/#', kind: 'ignore' },
      {
        topic: 'zigbee2mqtt/+/availability',
        kind: 'attributes',
        name: '{topic.2}',
        key: 'availability',
        members: null,
        values: [{ path: 'state', key: 'availability' }],
      },
      { topic: 'zigbee2mqtt/+', name: '{topic.2}', omit: ['update', 'device', 'last_seen'] },
    ],
    {
      topic: 'zigbee2mqtt/kitchen-window',
      payload: '{"contact":true,"battery":87,"linkquality":120,"temperature":21.4,"update":{"state":"idle"}}',
    },
  ),
  preset(
    'tasmota',
    ['tele/+/SENSOR', 'tele/+/STATE', 'tele/+/LWT'],
    [
      { topic: 'tele/+/LWT', kind: 'attributes', name: '{topic.2}', decoder: 'text', key: 'availability' },
      // `Time` is the local time of the plug, without its zone.
      { topic: 'tele/+/SENSOR', name: '{topic.2}', flatten: true, omit: ['Time'] },
      { topic: 'tele/+/STATE', name: '{topic.2}', flatten: true, omit: ['Time'] },
    ],
    {
      topic: 'tele/plug-7/SENSOR',
      payload: '{"Time":"2026-03-01T09:15:30","ENERGY":{"Total":12.345,"Power":61,"Voltage":231},"TempUnit":"C"}',
    },
  ),
  preset(
    'plain',
    ['devices/+/telemetry', 'devices/+/attributes', 'devices/+/values/+'],
    [
      { topic: 'devices/+/telemetry', name: '{topic.2}', omit: ['ts'], time: { path: 'ts', unit: 'ms' } },
      { topic: 'devices/+/attributes', kind: 'attributes', name: '{topic.2}' },
      { topic: 'devices/+/values/+', name: '{topic.2}', decoder: 'number', key: '{topic.4}' },
    ],
    { topic: 'devices/pump-1/telemetry', payload: '{"ts":1767225600000,"flow":12.5,"isRunning":true}' },
  ),
]
