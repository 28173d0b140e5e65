// SPDX-License-Identifier: AGPL-3.0-only

/** What keeps each bar from more, as profiles show it. No figures here: those are measured. */
export const limits: Readonly<Record<string, string>> = {
  'PF-1':
    'One thread of the server: with one message in flight every message is a read and every PUBACK a write of its own, and more than half of the thread goes there; a bare Node.js server spends as much. The rest is decoding, the store and what follows the commit. PostgreSQL is a tenth. The goal needs sockets on several threads.',
  'PF-2': 'The same thread; acknowledgements of a socket leave together here, so what is left is decoding and the store.',
  'PF-3': 'Merging has a thread of its own, but shares two cores with PostgreSQL; writes are slowed down so that it keeps up.',
  'PF-4': 'At half of the load a message waits for the flush in front of it, the commit window and its own commit.',
  'PF-5': 'Live subscribers are served on the same thread. Alarm rules are not there yet.',
  'PF-6': 'Parsing and answering HTTP in Node.js; the commit adds a wait, not work.',
  'PF-7': 'Statistics per hour are kept as plain columns, so that SQL reads them: of sparse series they are most of what is stored.',
  'PF-8':
    'A question costs three round trips to the database (begin, questions together, commit), and a chunk is decoded as a whole. PostgreSQL aggregates a day of one series on its own about as fast as we fetch and decode it.',
  'PF-9': 'The server loads all its parts at the start; a connection itself is small.',
  'PF-10': 'Memory grows with what waits in the young generation of the heap under the burst, and is given back slowly.',
  'PF-11': 'Nothing of weight: most of it is Node.js loading modules and PostgreSQL recovering its log.',
}
