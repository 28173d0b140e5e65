// SPDX-License-Identifier: AGPL-3.0-only

/**
 * `@iot-pms/core/license`: what the product and the vendor's tools share, so that issuer and verifier cannot drift.
 * Nothing here opens a database, a port or the network.
 */
export { LICENSE_CODES } from './codes.ts'
export { findRevocation, verifyCrl } from './crl.ts'
export type { Crl } from './crl.ts'
export { limitNames } from './claims.ts'
export type { LicenseClaims, LicenseEdition, LicenseKind, LicenseWarning, MachineClaim, MachineFactor } from './claims.ts'
export { EDITIONS, FEATURES } from './features.ts'
export type { BothLanguages, Feature, OnExpire } from './features.ts'
export { decodeUnverified } from './jws.ts'
export { isStrong, kidOf, loadKeys, thumbprintOf } from './keys.ts'
export type { KeyPurpose, LicenseKey, LicenseKeys } from './keys.ts'
export { factorHash, hashFactors, machineModes, matchMachine, strengthOf } from './machine.ts'
export type { MachineMatch, MachineMode, Strength } from './machine.ts'
export { shortCode, signRequest, verifyRequest } from './request.ts'
export type { LicenseRequest, UnsignedRequest } from './request.ts'
export { accessOf, evaluate, graceEndOf } from './state.ts'
export type { LicenseState } from './state.ts'
export { armourToken, canonicalJson, normaliseToken, parseStrictJson } from './text.ts'
export type { JsonObject, JsonValue } from './text.ts'
export { maxTokenCharacters, verifyLicense } from './token.ts'
export type { LicenseEnvironment, LicenseRefusal, VerifiedLicense } from './token.ts'
