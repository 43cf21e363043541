/**
 * What a trap record says, in words: the one place that turns an action and its operands into a sentence.
 * The sentences are in the catalogue (`action.*` in messages.js); this table says which operands fill them. Every action of
 * the engine's schema has a row here: a test compares the two. Pure.
 * @typedef {import('./format.js').Word} Word
 * @typedef {import('../records.js').TrapRecord} TrapRecord
 * @typedef {import('../protocol.js').Schema} Schema
 *
 * @typedef {object} Context what a sentence needs to know about the lab
 * @property {Schema} schema
 * @property {(key: string, params?: Record<string, string | number>) => string} t
 * @property {(value: number | bigint) => string} n a number in the reader's locale
 * @property {(guest: number) => string} guestName
 * @property {(guest: number, address: bigint) => string | null} place `symbol+0x12`, or null while it is unknown
 */
import { duration, hex, printable, word } from './format.js';

/** @param {Context} context @param {Word} number */
const csr = (context, number) => context.schema.csrs?.[Number(number)] ?? `csr ${hex(number, 3)}`;

/**
 * A kernel's address by name. A user address stays a number: which program it belongs to depends on the address space of that
 * moment, which only the opened record's replay knows.
 * @param {Context} context @param {TrapRecord} record @param {Word} address @param {boolean} [user]
 */
const place = (context, record, address, user = false) => (user ? null : context.place(record.guest, word(address))) ?? hex(address);

/** @param {Context} context @param {Word} privilege */
const mode = (context, privilege) => context.t(Number(privilege) === 0 ? 'mode.user' : 'mode.supervisor');

/** A device's register by its address: `uart+0x5`. @param {Context} context @param {Word} address @returns {string} */
export function deviceRegister(context, address) {
  const at = word(address);
  for (const [name, base, size] of context.schema.devices ?? []) {
    const start = word(base);
    if (at >= start && at < start + word(size)) return `${name}+${hex(at - start)}`;
  }
  return hex(at);
}

/**
 * A value of a device's register; the UART's first register carries characters.
 * @param {Context} context @param {Word} address @param {Word} value
 */
function deviceValue(context, address, value) {
  const number = word(value);
  const carries = (context.schema.devices ?? []).some(([name, base]) => name === 'uart' && word(base) === word(address));
  return carries && number >= 0x21n && number < 0x7fn ? `${hex(number)} '${printable(Number(number))}'` : hex(number);
}

/** @param {Context} context @param {Word} extension @param {Word} call */
function sbi(context, extension, call) {
  const row = context.schema.sbi?.[String(word(extension))];
  return { extension: row?.name ?? hex(extension), call: row?.functions[String(word(call))] ?? `#${word(call)}` };
}

/** @param {Context} context @param {Word} number */
const hypercall = (context, number) => context.schema.hypercalls?.[String(word(number))] ?? `#${word(number)}`;

/** The event channels whose bits are set. @param {Context} context @param {Word} bits */
function events(context, bits) {
  const names = Object.entries(context.schema.events ?? {});
  return names.filter(([bit]) => word(bits) >> BigInt(bit) & 1n).map(([, name]) => name).join(', ') || hex(bits);
}

/** @param {Context} context @param {number} cause the record's byte: bit 7 is the interrupt bit */
export const causeName = (context, cause) => {
  const key = `cause.${cause}`;
  return context.schema.causes[String(cause)] === undefined ? context.t('cause.unknown', { code: cause }) : context.t(key);
};

const INTERRUPT_BIT = 0x80;
/** Who runs next when a guest has used its cap up: nobody in particular; or while equal pages are looked for. Beyond every guest’s id. */
const CAP_REACHED = 0x10000;
const SCANNING = 0x20000;

/**
 * Handed to the guest's own handler; the cause is said only where it is not the trap's own.
 * @param {TrapRecord} record @param {Context} context @param {number} cause @returns {[string, Record<string, string>]}
 */
const inject = (record, context, cause) => (cause === record.cause
  ? ['action.inject', { handler: place(context, record, record.b) }]
  : ['action.inject.other', { cause: causeName(context, cause), handler: place(context, record, record.b) }]);

/**
 * Action name (the engine's, lower case) -> the catalogue's key and its parameters.
 * @type {Record<string, (record: TrapRecord, context: Context) => [string, Record<string, string>?]>}
 */
export const ACTIONS = {
  deliver: (r, c) => ['action.deliver', { handler: place(c, r, r.a) }],
  csr_read: (r, c) => ['action.csr_read', { csr: csr(c, r.a), value: hex(r.b) }],
  csr_write: (r, c) => ['action.csr_write', { csr: csr(c, r.a), value: hex(r.b) }],
  sret: (r, c) => ['action.sret', { target: place(c, r, r.a, word(r.b) === 0n), mode: mode(c, r.b) }],
  mret: (r, c) => ['action.mret', { target: place(c, r, r.a, word(r.b) === 0n), mode: mode(c, r.b) }],
  wfi: (r, c) => (word(r.a) === 0n ? ['action.wfi.event'] : ['action.wfi', { time: duration(r.a).join(' ') }]),
  sfence: (r, c) => (word(r.a) === 0n
    ? ['action.sfence.all', { pages: c.n(r.b) }]
    : ['action.sfence', { address: hex(r.a), pages: c.n(r.b) }]),
  shadow_fill: (r) => ['action.shadow_fill', { gpa: hex(r.a), hpa: hex(r.b) }],
  inject_exception: (r, c) => inject(r, c, Number(r.a)),
  inject_interrupt: (r, c) => inject(r, c, Number(r.a) | INTERRUPT_BIT),
  mmio_read: (r, c) => ['action.mmio_read', { register: deviceRegister(c, r.a), value: deviceValue(c, r.a, r.b) }],
  mmio_write: (r, c) => ['action.mmio_write', { register: deviceRegister(c, r.a), value: deviceValue(c, r.a, r.b) }],
  sbi_call: (r, c) => ['action.sbi_call', sbi(c, r.a, r.b)],
  page_table_write: (r) => ['action.page_table_write', { gpa: hex(r.a), value: hex(r.b) }],
  timer: (r) => [word(r.a) === 1n ? 'action.timer.pending' : 'action.timer'],
  preempt: (r, c) => (Number(r.a) === CAP_REACHED ? ['action.preempt.cap'] : Number(r.a) === SCANNING ? ['action.preempt.scan'] : r.a ? ['action.preempt', { guest: c.guestName(Number(r.a)) }] : ['action.preempt.host']),
  kill: (r, c) => ['action.kill', { reason: c.t(`failure.${c.schema.failures[Number(r.a)] ?? 'guest-failed'}`) }],
  shutdown: (r, c) => ['action.shutdown', { status: String(BigInt.asIntN(32, word(r.a))) }],
  address_space: (r) => [word(r.b) === 1n ? 'action.address_space.kept' : 'action.address_space.new', { value: hex(r.a) }],
  dirty: (r) => ['action.dirty', { gpa: hex(r.a), hpa: hex(r.b) }],
  emulate: () => ['action.emulate'],
  second_stage_fill: (r) => ['action.second_stage_fill', { gpa: hex(r.a), hpa: hex(r.b) }],
  copy_on_write: (r) => ['action.copy_on_write', { gpa: hex(r.a), hpa: hex(r.b) }],
  hypercall: (r, c) => ['action.hypercall', { call: hypercall(c, r.a), argument: hex(r.b) }],
  multicall: (r, c) => [word(r.b) === 0n ? 'action.multicall' : 'action.multicall.refused', { count: c.n(r.a), refused: c.n(r.b) }],
  hypercall_return: (r, c) => [word(r.b) === 0n ? 'action.hypercall_return' : 'action.hypercall_return.batch',
    { target: place(c, r, r.a, true), count: c.n(r.b) }],
  upcall: (r, c) => ['action.upcall', { events: events(c, r.a), handler: place(c, r, r.b) }],
  direct_fill: (r) => ['action.direct_fill', { gpa: hex(r.a), hpa: hex(r.b) }],
  block: (r) => (word(r.a) === 0n ? ['action.block.event'] : ['action.block', { time: duration(r.a).join(' ') }]),
  translate: (r, c) => ['action.translate', { pc: place(c, r, r.a), count: c.n(r.b) }],
  chain: (r, c) => ['action.chain', { pc: place(c, r, r.a) }],
  retranslate: (r) => ['action.retranslate', { gpa: hex(r.a), value: hex(r.b) }],
  code_write: (r) => ['action.code_write', { gpa: hex(r.a), value: hex(r.b) }],
  log_dirty: (r) => ['action.log_dirty', { gpa: hex(r.a), hpa: hex(r.b) }],
  remote_fetch: (r) => ['action.remote_fetch', { gpa: hex(r.a), hpa: hex(r.b) }],
  share: (r, c) => ['action.share', { pages: c.n(r.a), frames: c.n(r.b) }],
  swap_out: (r, c) => ['action.swap_out', { pages: c.n(r.a), all: c.n(r.b) }],
  swap_in: (r) => ['action.swap_in', { gpa: hex(r.a), hpa: hex(r.b) }],
  balloon_inflate: (r, c) => ['action.balloon_inflate', { pages: c.n(r.a), had: c.n(r.b) }],
  balloon_deflate: (r, c) => ['action.balloon_deflate', { pages: c.n(r.a) }],
};

/** @param {TrapRecord} record @param {Context} context @returns {string} what happened, as one sentence */
export function describe(record, context) {
  const name = context.schema.actions[record.action];
  const row = ACTIONS[name];
  if (!row) return name ?? '';
  const [key, params] = row(record, context);
  return context.t(key, params);
}

/** @param {TrapRecord} record @param {Context} context @returns {string} `vS → VMM → vS` */
export function pathText(record, context) {
  return pathName(record.path, context);
}

/** @param {number} path @param {Context} context */
export function pathName(path, context) {
  return (context.schema.paths[path] ?? []).map((level) => context.t(`level.short.${context.schema.levels[level].name}`)).join(' → ');
}

/** @param {number} path @param {Context} context @returns {string} the same in whole words */
export function pathWords(path, context) {
  return (context.schema.paths[path] ?? []).map((level) => context.t(`level.${context.schema.levels[level].name}`)).join(' → ');
}

/** Where the trap was: the kernel's symbol, or the address. @param {TrapRecord} record @param {Context} context */
export const at = (record, context) => place(context, record, record.pc, context.schema.levels[record.from_level].name === 'user');
