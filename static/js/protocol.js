/**
 * What travels between page and server (protocol version 1), as types, and the two facts a reader of it needs:
 * the version and the layout of the typed columns. Everything about trace records comes from the server's schema.
 *
 * On the wire `bin` arrives as an ArrayBuffer; an integer beyond 2^53 arrives as a BigInt and may be sent as one.
 */

export const PROTOCOL = 1;

/**
 * @typedef {{key: string, message: string, params?: Record<string, string | number>}} Problem
 * @typedef {{stage: string, done: number, total: number, running: boolean, problem: Problem | null}} Fetch  done and total in bytes
 * @typedef {{id: string, done: number, total: number, state: 'running' | 'kept' | 'gone'}} Comparing  how many of its runs are over
 * @typedef {{type: string, [field: string]: unknown}} Command
 * @typedef {{type: string, [field: string]: unknown}} Query
 *
 * @typedef {{id: number, name: string, x: number, y: number, harts: number, memory_mib: number, stack: string,
 *            technique: string | null, switches: string[], host_load: number, scheduler: string | null, share_pages: boolean,
 *            overcommit: boolean}} Host
 * @typedef {{id: number, name: string, host: number, image: string, vcpus: number, memory_mib: number,
 *            arguments: string, weight: number, cap: number, balloon_mib: number}} Guest
 * @typedef {{id: string, name: string, builtin: boolean, size: number, default_memory_mib: number, kind: string,
 *            title_key: string | null, source: string | null, arguments: string, title: string | null,
 *            snapshot?: {image: string, technique: string | null, vcpus: number, arguments: string} | null,
 *            paravirtual?: boolean, original?: string | null}} Image
 * @typedef {{name: string, hosts: Host[], guests: Guest[], images: Image[], speed: string, unit: 'trap' | 'instruction',
 *            running: boolean, undo: string | null, redo: string | null, link_gbit: number,
 *            costs: {profile: string, overrides: Record<string, number>}}} LabDocument
 *
 * @typedef {{size: number, fields: Record<string, [offset: number, bytes: number]>, kinds: string[],
 *            levels: {name: string, group: string}[], dispositions: string[], actions: string[], paths: number[][],
 *            failures: string[], causes: Record<string, string>, csrs?: Record<string, string>, registers?: string[],
 *            devices?: [name: string, base: number, size: number][],
 *            stacks: Record<string, {type: number | null, techniques: string[], scheduler: string | null}>, schedulers: string[],
 *            switches: Record<string, {stacks: string[], techniques: string[]}>, generations: string[][],
 *            workloads: {guests: string[], counts: Record<string, number>, disk: string[]},
 *            hypercalls?: Record<string, string>, events?: Record<string, string>,
 *            sbi?: Record<string, {name: string, functions: Record<string, string>}>}} Schema
 *
 * @typedef {[guest: number, address: string, port: number, state: number]} GdbRow  state: index into GDB_STATES
 * @typedef {Record<string, ArrayBuffer>} Columns
 * @typedef {{guest: number, host: number, key: string, params: Record<string, string | number>, level: string}} Notice
 * @typedef {{n: number, position: number, time: number, running: boolean, guests: Columns, hosts: Columns,
 *            counts: Columns, sample: ArrayBuffer, console: [number, ArrayBuffer][], notices: Notice[],
 *            migrations?: import('./migrations.js').Migration[], gdb?: GdbRow | null}} Tick
 * @typedef {{state: number, level: number, pc: number | bigint, instructions: number, exits: number, ran: number, stolen: number,
 *            present: number, swapped: number, ballooned: number,
 *            exit_status: number | null, failure: {key: string, params: Record<string, string | number>} | null}} GuestStatus
 * @typedef {{schema: Schema, document: LabDocument, position: number, time: number, running: boolean,
 *            history: {begin: number, end: number}, status: Record<string, GuestStatus>, totals: Columns,
 *            console: [number, ArrayBuffer][], records: ArrayBuffer, symbols: Record<string, number>, hosts: Columns,
 *            migrations?: import('./migrations.js').Migration[], gdb?: GdbRow | null}} Keyframe
 */

/** The states of a guest, in the order of the tick's `state` column. */
/** What gdb does with the guest whose port it has. */
export const GDB_STATES = /** @type {const} */ (['waiting', 'held', 'running']);
export const GUEST_STATES = /** @type {const} */ (['off', 'running', 'idle', 'stopped', 'failed']);

const VIEWS = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, u8: BigUint64Array };

/** Width of every column of a tick; the names are the contract's. */
const COLUMNS = /** @type {const} */ ({
  guests: { id: 'u2', state: 'u1', level: 'u1', pc: 'u8', instructions: 'u8', exits: 'u8', ran: 'u8', stolen: 'u8', present: 'u4', swapped: 'u4', ballooned: 'u4' },
  hosts: { id: 'u2', time: 'u8', busy_permille: 'u2', memory_used_mib: 'u4', frames_used: 'u4', frames_saved: 'u4', pages_swapped: 'u4' },
  counts: { guest: 'u2', kind: 'u1', cause: 'u1', path: 'u1', disposition: 'u1', count: 'u4' },
});

/**
 * View the columns of one table as typed arrays (no copy; the buffers belong to the packet).
 * @template {keyof typeof COLUMNS} T
 * @param {T} table
 * @param {Columns} columns
 * @returns {{length: number} & {[name in keyof (typeof COLUMNS)[T]]:
 *            (typeof COLUMNS)[T][name] extends 'u8' ? BigUint64Array : Uint8Array | Uint16Array | Uint32Array}}
 */
export function viewColumns(table, columns) {
  /** @type {Record<string, any>} */
  const views = { length: 0 };
  for (const [name, type] of Object.entries(COLUMNS[table])) {
    const view = new VIEWS[/** @type {keyof typeof VIEWS} */ (type)](columns[name]);
    views[name] = view;
    views.length = view.length;
  }
  return /** @type {any} */ (views);
}
