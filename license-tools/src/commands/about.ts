// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { spawnSync } from 'node:child_process'
import { lookup } from 'node:dns'
import { writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import manifest from '../../package.json' with { type: 'json' }
import { globalOptions, usageError } from '../arguments.ts'
import type { OptionTable } from '../arguments.ts'
import { ToolError, systemCode } from '../errors.ts'
import type { Result } from '../terminal.ts'
import type { Command, Tool } from '../tool.ts'

/** Commands about the tool itself. @param all every command, for help and completion */
export function createAboutCommands(all: () => Record<string, Command>): Record<string, Command> {
  return {
    version: {
      usage: 'version',
      about: { zh: '显示版本', en: 'prints the version' },
      run: () => ({ json: { version: manifest.version, node: process.versions.node }, lines: [`license-tools ${manifest.version}`] }),
    },
    help: {
      usage: 'help [COMMAND]',
      about: { zh: '显示用法', en: 'prints usage' },
      positionals: { least: 0, most: 2 },
      run: (tool) => help(tool, all()),
    },
    completion: {
      usage: 'completion bash|zsh|fish',
      about: { zh: '打印命令补全脚本', en: 'prints a completion script' },
      positionals: { least: 1, most: 1 },
      run: (tool) => complete(tool.args.positionals[0]!, all()),
    },
    'selftest offline': {
      usage: 'selftest offline',
      about: { zh: '证明本进程不能联网', en: 'proves that this process has no network' },
      isHidden: true,
      run: () => testOffline(),
    },
  }
}

function help(tool: Tool, commands: Record<string, Command>): Result {
  const name = tool.args.positionals.join(' ')
  if (name === '') {
    const shown = Object.entries(commands).filter(([, command]) => !command.isHidden)
    return {
      json: { commands: shown.map(([id, { usage }]) => ({ command: id, usage })) },
      lines: [
        { zh: '供应商的离线许可证工具。', en: "The vendor's offline license tool." },
        '',
        ...shown.map(([id, { about }]) => ({ zh: `${id.padEnd(22)}${about.zh}`, en: `${id.padEnd(22)}${about.en}` })),
        '',
        {
          zh: '各命令的用法：help COMMAND。公共选项：--ledger DIR --json --quiet --lang zh|en --yes --actor NAME',
          en: 'Usage of each: help COMMAND. Options of all: --ledger DIR --json --quiet --lang zh|en --yes --actor NAME',
        },
      ],
    }
  }
  const command = commands[name]
  if (!command || !Object.hasOwn(commands, name)) throw usageError(`没有命令 ${name}`, `there is no command ${name}`)
  const options = Object.keys(command.options ?? {}).sort()
  return {
    json: { command: name, usage: command.usage, options },
    lines: [
      command.about,
      `license-tools ${command.usage}`,
      ...(options.length > 0 ? [options.map((option) => `--${option}`).join(' ')] : []),
    ],
  }
}

function complete(shell: string, commands: Record<string, Command>): Result {
  const shown = Object.entries(commands).filter(([, command]) => !command.isHidden)
  const firsts = [...new Set(shown.map(([name]) => name.split(' ')[0]!))]
  const seconds = (first: string) => shown.flatMap(([name]) => (name.startsWith(`${first} `) ? [name.split(' ')[1]!] : []))
  const optionsOf = (table: OptionTable) => Object.keys({ ...globalOptions, ...table }).map((option) => `--${option}`)
  const all = [...new Set(shown.flatMap(([, command]) => optionsOf(command.options ?? {})))].join(' ')
  const cases = firsts.filter((first) => seconds(first).length > 0)
  const bash = [
    '_license_tools() {',
    '  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}',
    `  if [[ $word == -* ]]; then COMPREPLY=($(compgen -W "${all}" -- "$word")); return; fi`,
    `  if ((COMP_CWORD == 1)); then COMPREPLY=($(compgen -W "${firsts.join(' ')}" -- "$word")); return; fi`,
    '  case $before in',
    ...cases.map((first) => `    ${first}) COMPREPLY=($(compgen -W "${seconds(first).join(' ')}" -- "$word")) ;;`),
    '    *) COMPREPLY=($(compgen -f -- "$word")) ;;',
    '  esac',
    '}',
    'complete -F _license_tools license-tools',
  ]
  const scripts: Record<string, string[]> = {
    bash,
    zsh: ['autoload -U +X bashcompinit && bashcompinit', ...bash],
    fish: [
      `complete -c license-tools -n __fish_use_subcommand -a "${firsts.join(' ')}"`,
      ...cases.map((first) => `complete -c license-tools -n "__fish_seen_subcommand_from ${first}" -a "${seconds(first).join(' ')}"`),
    ],
  }
  const script = Object.hasOwn(scripts, shell) ? scripts[shell] : undefined
  if (!script) throw usageError('可选 bash、zsh、fish', 'it is one of bash, zsh, fish')
  return { json: { shell, script: script.join('\n') }, lines: script }
}

/** [T-1] Tries what an offline process cannot do. */
async function testOffline(): Promise<Result> {
  const attempts: Record<string, Promise<string>> = {
    'net.connect': new Promise((resolve) => {
      const socket = connect(65_000, '127.0.0.1')
      socket.once('connect', () => resolve('allowed'))
      socket.once('error', (error) => resolve(systemCode(error)))
    }),
    'dns.lookup': new Promise((resolve) => lookup('localhost', (error) => resolve(error ? systemCode(error) : 'allowed'))),
    fetch: fetch('http://127.0.0.1:65000/').then(
      () => 'allowed',
      (error: unknown) => systemCode(error instanceof Error && error.cause ? error.cause : error),
    ),
    child_process: attempt(() => {
      const { error } = spawnSync(process.execPath, ['--version'])
      if (error) throw error
    }),
    'write outside': attempt(() => writeFileSync(join(tmpdir(), `license-tools-${process.pid}`), '')),
  }
  const results = Object.fromEntries(
    await Promise.all(Object.entries(attempts).map(async ([name, result]) => [name, await result] as const)),
  )
  const isOffline = Object.values(results).every((code) => code === 'ERR_ACCESS_DENIED')
  if (!isOffline) throw new ToolError('NOT_OFFLINE', { zh: '并非所有操作都被禁止。', en: 'Not everything was denied.' }, { results })
  return { json: { denied: results }, lines: Object.entries(results).map(([name, code]) => `${name.padEnd(14)} ${code}`) }
}

async function attempt(act: () => void): Promise<string> {
  try {
    act()
    return 'allowed'
  } catch (error) {
    return systemCode(error)
  }
}
