// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { main } from './verify.mjs'

/** `iot-pms audit verify …`: files by the verifier that lies in every bundle, `--live` what is in the database. */
const args = process.argv.slice(2)
const print = (line: string) => process.stdout.write(`${line}\n`)
process.exitCode = args.includes('--live') ? await (await import('./verify-live.ts')).verifyLive(args, print) : await main(args, print)
