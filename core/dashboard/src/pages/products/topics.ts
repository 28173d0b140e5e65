// SPDX-License-Identifier: AGPL-3.0-only

/** Topics, one a line; blank lines are none. */
export function readTopics(text: string): string[] {
  return [
    ...new Set(
      text
        .split('\n')
        .map((line) => line.trim())
        .filter(Boolean),
    ),
  ]
}

export type TopicProblem = 'fixed' | 'long' | 'wildcard' | 'noWildcard' | 'many'

/** Why one of the topics is refused, with the topic. The server looks again. */
export function topicProblem(topics: readonly string[], kind: 'filter' | 'topic'): { problem: TopicProblem; topic: string } | undefined {
  if (topics.length > 8) return { problem: 'many', topic: topics[8]! }
  for (const topic of topics) {
    const levels = topic.split('/')
    if (/^(?:v1\/|v2\/|\/provision|\$)/.test(topic)) return { problem: 'fixed', topic }
    if (new TextEncoder().encode(topic).length > 512 || levels.length > 16) return { problem: 'long', topic }
    if (kind === 'topic' && /[+#]/.test(topic)) return { problem: 'noWildcard', topic }
    const isWrong = levels.some((level, at) => level !== '+' && !(level === '#' && at === levels.length - 1) && /[+#]/.test(level))
    if (isWrong) return { problem: 'wildcard', topic }
  }
  return undefined
}
