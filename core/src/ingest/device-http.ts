// SPDX-License-Identifier: AGPL-3.0-only
import { httpClaimCalls } from '../claims/routes.ts'
import { httpClientRpcCalls } from '../client-rpc/http.ts'
import type { Context } from '../context.ts'
import { httpDownloadCalls } from '../firmware/http-downloads.ts'
import type { App } from '../http/server.ts'
import { httpProvisioning } from '../provisioning/entrances.ts'
import { httpAttributeCalls } from './http-attributes.ts'
import { httpRpcCalls } from './http-rpc.ts'
import { registerHttpIngest } from './http.ts'
import { registerInfluxWrites } from './influx/http.ts'
import type { Device } from './registry.ts'
import type { Reject } from './rejects.ts'
import type { Ingest } from './start-ingest.ts'

/** Every way in for devices over HTTP: their own calls (device API §11), and lines as for InfluxDB. */
export async function registerDeviceHttp(app: App, context: Context, ingest: Ingest): Promise<void> {
  const { pipeline, registry, children, rejects, reads, polls, commands, claims, clientRpc, states, disk } = ingest
  const { clock } = context
  const active = (device: Device) => states.activeOverHttp(device, clock.now())
  const record = (device: Device, address: string, topic: string, reject: Reject) =>
    rejects.record({ device, source: { transport: 'http', topic, address }, reject, payload: Buffer.alloc(0) })
  const door = {
    clock,
    assertTakesData: () => disk.assertTakesTelemetry(),
    findByToken: (token: string) => registry.findByToken(token),
    refused: ({ address, reason, tokenLast4 }: { address: string; reason: string; tokenLast4: string }) =>
      ingest.refused.add({ address, reason, last4: tokenLast4 }),
  }
  await registerHttpIngest(app, {
    ...door,
    sink: pipeline,
    limited: record,
    tooLarge: (device, address, topic, limit) =>
      record(device, address, topic, { code: 'PACKET_TOO_LARGE', detail: `the body is larger than ${limit} bytes` }),
    openCalls: [httpProvisioning(ingest.provisioning, door)],
    calls: [
      httpAttributeCalls({ reads, polls, clock, active }),
      httpClaimCalls({ claims, context, rejects, active }),
      httpClientRpcCalls({ clientRpc, rejects, active }),
      httpRpcCalls({
        commands,
        polls,
        clock,
        active,
        refused: (device, address, reject) => record(device, address, '/api/v1/…/rpc', reject),
      }),
      httpDownloadCalls({ ...ingest.ota, clock, active }),
    ],
  })
  await registerInfluxWrites(app, { ...door, pipeline, rejects, children })
}
