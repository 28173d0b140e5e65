// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { createPublicKey } from 'node:crypto'
import { existsSync } from 'node:fs'
import { basename } from 'node:path'
import { isStrong, kidOf } from '@iot-pms/core/license'
import type { LicenseKey } from '@iot-pms/core/license'
import { ToolError } from './errors.ts'
import { readInput } from './files.ts'
import { openKey, openPem, readKeyFile } from './keystore.ts'
import type { KeyFile, KeyStatus, Purpose, SigningKey } from './keystore.ts'
import type { Ledger } from './ledger.ts'
import { readPassphrase } from './terminal.ts'
import { record } from './tool.ts'
import type { Tool } from './tool.ts'

/** A key that was chosen but not opened yet, so that nobody types a passphrase for something policy refuses. */
export type ChosenKey = {
  kid: string | undefined
  purpose: Purpose
  status: KeyStatus
  open(): Promise<SigningKey>
}

/**
 * [T-4] The key named by `--key`, else the one active key of the purpose.
 * @throws KEY_MISSING, KEY_AMBIGUOUS, KEY_FILE
 */
export function chooseKey(tool: Tool, ledger: Ledger, purpose: Purpose, named = tool.args.text('key')): ChosenKey {
  if (named !== undefined && !ledger.records.keys.has(named) && existsSync(named)) return chooseFile(tool, ledger, named, purpose)
  if (named !== undefined) return chosen(tool, ledger.getKey(named))
  const fitting = ledger.listKeys().filter((key) => key.purpose === purpose && key.status === 'active')
  if (fitting.length === 1) return chosen(tool, fitting[0]!)
  if (fitting.length === 0) {
    throw new ToolError('KEY_MISSING', {
      zh: `台账中没有可用的 ${purpose} 密钥，请运行 key create --purpose ${purpose}。`,
      en: `The ledger has no active ${purpose} key: run key create --purpose ${purpose}.`,
    })
  }
  throw new ToolError('KEY_AMBIGUOUS', {
    zh: `有多个可用的 ${purpose} 密钥，请用 --key 指定：${fitting.map((key) => key.kid).join(' ')}。`,
    en: `There are several active ${purpose} keys, name one with --key: ${fitting.map((key) => key.kid).join(' ')}.`,
  })
}

/** [T-13] Takes a PEM key's public part into the ledger when it is used the first time. Needs the lock. */
export function importForeignKey(tool: Tool, ledger: Ledger, key: SigningKey): void {
  const known = ledger.records.keys.get(key.kid)
  if (known?.status === 'retired' || known?.status === 'revoked' || (known && known.purpose !== key.purpose)) {
    throw new ToolError(
      'POLICY',
      { zh: `密钥 ${key.kid} 不可用于此（POLICY_KEY）。`, en: `Key ${key.kid} cannot be used for this (POLICY_KEY).` },
      {
        violations: [{ code: 'POLICY_KEY', message: 'the key is retired, revoked or of another purpose' }],
      },
    )
  }
  if (known) return
  const pem = key.publicKey.export({ type: 'spki', format: 'pem' })
  record(tool, ledger, 'key.import', { bits: key.bits, kid: key.kid, public: pem, purpose: key.purpose })
}

/** All public keys that the ledger vouches for. @param files more of them, as SPKI PEM */
export function listPublicKeys(ledger: Ledger | undefined, files: readonly string[] = []): Map<string, LicenseKey> {
  const keys = new Map<string, LicenseKey>()
  for (const { kid, purpose, public: pem } of ledger?.listKeys() ?? []) keys.set(kid, { kid, purpose, key: createPublicKey(pem) })
  for (const { kid, purpose, public: pem } of ledger?.records.keys.values() ?? []) {
    if (pem !== undefined && !keys.has(kid)) keys.set(kid, { kid, purpose, key: createPublicKey(pem) })
  }
  for (const file of files) {
    const key = readPublicKey(file)
    keys.set(key.kid, key)
  }
  return keys
}

/** @throws KEY_FILE when the file is no public key of the product's strength */
export function readPublicKey(path: string): LicenseKey {
  const text = readInput(path)
  try {
    if (!text.startsWith('-----BEGIN PUBLIC KEY-----')) throw new Error('not a public key')
    const key = createPublicKey(text)
    if (!isStrong(key)) throw new Error('too weak')
    const purpose = /^(license|staging|crl)-/.exec(basename(path))?.[1] as Purpose | undefined
    return { kid: kidOf(key), purpose: purpose ?? 'license', key }
  } catch {
    throw new ToolError('KEY_FILE', {
      zh: `${path} 不是 3072 位以上的 RSA 公钥（PEM）。`,
      en: `${path} is not a public RSA key of at least 3072 bits in PEM.`,
    })
  }
}

function chosen(tool: Tool, file: KeyFile): ChosenKey {
  const { kid, purpose, status } = file
  const prompt = { zh: `密钥 ${kid} 的口令：`, en: `Passphrase of key ${kid}: ` }
  return { kid, purpose, status, open: async () => openKey(file, await readPassphrase(tool.args, tool.terminal, tool.env, { prompt })) }
}

function chooseFile(tool: Tool, ledger: Ledger, path: string, purpose: Purpose): ChosenKey {
  if (path.endsWith('.key.json')) {
    const file = readKeyFile(path)
    return chosen(tool, { ...file, status: ledger.records.keys.get(file.kid)?.status ?? file.status })
  }
  const pem = readInput(path)
  const open = async () => {
    const isEncrypted = pem.includes('-----BEGIN ENCRYPTED ')
    const isPlainAllowed = tool.args.flag('allow-plain-key')
    if (!isEncrypted && isPlainAllowed) {
      await tool.terminal.confirm({ zh: `${path} 未加密。确定使用？`, en: `${path} is not encrypted. Use it all the same?` })
    }
    const passphrase = isEncrypted
      ? await readPassphrase(tool.args, tool.terminal, tool.env, { prompt: { zh: `${path} 的口令：`, en: `Passphrase of ${path}: ` } })
      : ''
    return openPem(pem, purpose, () => passphrase, isPlainAllowed)
  }
  return { kid: undefined, purpose, status: 'active', open }
}
