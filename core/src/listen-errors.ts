// SPDX-License-Identifier: AGPL-3.0-only
import type { Config } from './config.ts'
import { StartError, exitCodes } from './errors.ts'

type ExplainError = (error: NodeJS.ErrnoException) => never

/** @throws {StartError} `PORT_BUSY`, `PORT_FORBIDDEN` with the setting of the port that could not be opened */
export function explainMqttPort({ mqtt: { port, tlsPort } }: Config): ExplainError {
  return (error) => {
    const isTls = (error as { port?: number }).port === tlsPort && tlsPort !== port
    return explainListenError(isTls ? 'IOT_PMS_MQTTS_PORT' : 'IOT_PMS_MQTT_PORT', isTls ? tlsPort : port)(error)
  }
}

/** @throws {StartError} `PORT_BUSY`, `PORT_FORBIDDEN`; any other error as it is */
export function explainListenError(setting: string, port: number | 'off'): ExplainError {
  return (error) => {
    if (error.code === 'EADDRINUSE') {
      throw new StartError(
        'PORT_BUSY',
        exitCodes.unavailable,
        `Port ${port} is in use by another program.`,
        `Stop that program, or set ${setting} to another port.`,
        error,
      )
    }
    if (error.code === 'EACCES') {
      throw new StartError(
        'PORT_FORBIDDEN',
        exitCodes.config,
        `This user may not open port ${port}.`,
        `Ports below 1024 need rights: set ${setting} to a higher one, or allow it (setcap cap_net_bind_service).`,
        error,
      )
    }
    throw error
  }
}
