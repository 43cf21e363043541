/** The panels' pure parts: words of a record, filters, the feed's order and gaps, hex layout, the timeline's scale, input, rates. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConsoleLog, INPUT_BYTES, inputCommands, SCROLLBACK_BYTES } from '../../static/js/panels/console_log.js';
import { ACTIONS, at, describe, deviceRegister } from '../../static/js/panels/describe.js';
import { Feed, isGap, visibleRows } from '../../static/js/panels/feed.js';
import { everything, matches, restricts } from '../../static/js/panels/filter.js';
import { hex, hexWord, parseAddress } from '../../static/js/panels/format.js';
import { hexdump, moved, rowStart, sv39 } from '../../static/js/panels/hexdump.js';
import { PANEL_MESSAGES } from '../../static/js/panels/messages.js';
import { BIN_MS, BINS, Rates } from '../../static/js/panels/rates.js';
import { riscv } from '../../static/js/panels/riscv_mode.js';
import { entryKind, missCosts, walkOrder, whyUnmapped } from '../../static/js/panels/walk.js';
import { following, inside, markAt, neighbour, panned, ticks, toPixel, toPosition, zoomed } from '../../static/js/panels/scale.js';

/** @param {Partial<import('../../static/js/records.js').TrapRecord>} fields */
const trap = (fields = {}) => ({
  sequence: 1, time: 0, position: 0, pc: 0x80200000n, value: 0n, a: 0n, b: 0n, executed: 0, cost: 0, instruction: 0, host: 1, guest: 1,
  vcpu: 0, kind: 0, cause: 2, path: 0, disposition: 1, action: 0, from_level: 2, to_level: 2, ...fields,
});

const NAMES = Object.keys(ACTIONS);
/** @type {any} */
const CONTEXT = {
  schema: {
    actions: NAMES, failures: ['trap-loop'], causes: { 8: 'x', 133: 'y' }, csrs: { 384: 'satp' }, devices: [['uart', 0x10000000, 256]],
    sbi: { 1414090053: { name: 'TIME', functions: { 0: 'set_timer' } } }, levels: [{ name: 'user' }, { name: 'kernel' }, { name: 'kernel_deprivileged' }],
    paths: [[2, 2]],
  },
  t: (/** @type {string} */ key, params = {}) => (PANEL_MESSAGES[key]?.[0] ?? key).replace(/\{(\w+)[^}]*\}/g, (_, name) => /** @type {any} */ (params)[name] ?? `{${name}}`),
  n: String,
  guestName: (/** @type {number} */ guest) => `vm-${guest}`,
  place: (/** @type {number} */ _, /** @type {bigint} */ address) => (address === 0x80200040n ? 'trap_entry' : null),
};
const say = (/** @type {string} */ action, /** @type {object} */ fields) => describe(/** @type {any} */ (trap({ action: NAMES.indexOf(action), ...fields })), CONTEXT);

test('a machine word is never rounded', () => {
  assert.equal(hex(0xffffffffffffffffn), '0xffffffffffffffff');
  assert.equal(hex(-1), '0xffffffffffffffff');
  assert.equal(hexWord(0xffffffc000102abcn), '0xffffffc0 00102abc');
  assert.equal(hex(5, 3), '0x005');
});

test('addresses are read as people type them', () => {
  assert.equal(parseAddress('0x8020_0000'), 0x80200000n);
  assert.equal(parseAddress(' 80200000h '), 0x80200000n);
  assert.equal(parseAddress('4096'), 4096n);
  assert.equal(parseAddress('0xffffffffffffffff'), 2n ** 64n - 1n);
  for (const bad of ['', 'main', '0x', '0x1_0000_0000_0000_0000', '18446744073709551616', '-1', '1.5']) assert.equal(parseAddress(bad), null, bad);
});

test('actions become sentences of their operands', () => {
  assert.equal(say('csr_write', { a: 384n, b: 0x8000000000080245n }), 'satp ← 0x8000000000080245');
  assert.equal(say('csr_read', { a: 0x7c0n, b: 1n }), 'csr 0x7c0 read: 0x1');
  assert.equal(say('address_space', { a: 1n, b: 1n }), 'satp ← 0x1: shadow tables kept');
  assert.equal(say('address_space', { a: 1n, b: 0n }), 'satp ← 0x1: new shadow tables');
  assert.equal(say('deliver', { a: 0x80200040n }), 'delivered to the handler at trap_entry');
  assert.equal(say('sret', { a: 0x80200040n, b: 0n }), 'sret → 0x80200040 (user)', 'a user address has no name without its address space');
  assert.equal(say('sret', { a: 0x80200040n, b: 1n }), 'sret → trap_entry (supervisor)');
  assert.equal(say('mmio_write', { a: 0x10000000n, b: 0x6bn }), "uart+0x0 ← 0x6b 'k'");
  assert.equal(say('mmio_read', { a: 0x10000005n, b: 0x60n }), 'uart+0x5 read: 0x60', 'a status is no character');
  assert.equal(say('sbi_call', { a: 0x54494d45n, b: 0n }), 'SBI TIME set_timer');
  assert.equal(say('sbi_call', { a: 0x99n, b: 7n }), 'SBI 0x99 #7');
  assert.equal(say('inject_interrupt', { a: 5n, b: 0x80200040n }), 'supervisor timer interrupt: to the guest’s handler trap_entry');
  assert.equal(say('inject_exception', { cause: 8, a: 8n, b: 0x80200040n }), 'to the guest’s handler trap_entry');
  assert.equal(say('wfi', { a: 0n }), 'wfi: the vCPU sleeps until a device wakes it');
  assert.equal(say('wfi', { a: 1500n }), 'wfi: the vCPU sleeps until 1.500 µs');
  assert.equal(say('shutdown', { a: 3n }), 'the guest ended itself with status 3');
  assert.equal(say('timer', { a: 0n }), 'the host’s own timer: nothing for the guest');
  assert.equal(say('timer', { a: 1n }), 'the guest’s timer is due, but it has interrupts off: kept pending');
  assert.equal(say('preempt', { a: 2n }), 'time slice over: vm-2 runs next');
});

test('every action fills every hole of its sentence, in both languages', () => {
  for (const [index, name] of NAMES.entries()) {
    for (const [a, b] of [[0n, 0n], [1n, 1n], [2n ** 64n - 1n, 2n ** 64n - 1n]]) {
      for (const column of [0, 1]) {
        const t = (/** @type {string} */ key, params = {}) => {
          assert.ok(PANEL_MESSAGES[key] || key.startsWith('failure.'), `${name}: ${key}`);
          return (PANEL_MESSAGES[key]?.[column] ?? key).replace(/\{(\w+)[^}]*\}/g, (hole, field) => /** @type {any} */ (params)[field] ?? hole);
        };
        const text = describe(/** @type {any} */ (trap({ action: index, a, b })), { ...CONTEXT, t });
        assert.doesNotMatch(text, /[{}]|undefined|NaN/, `${name}: ${text}`);
      }
    }
  }
});

test('a place is the kernel’s symbol, and a number in user code', () => {
  assert.equal(at(/** @type {any} */ (trap({ pc: 0x80200040n })), CONTEXT), 'trap_entry');
  assert.equal(at(/** @type {any} */ (trap({ pc: 0x80200040n, from_level: 0 })), CONTEXT), '0x80200040');
  assert.equal(deviceRegister(CONTEXT, 0x10000100n), '0x10000100');
});

test('filters restrict by each column and by every word of the text', () => {
  const record = /** @type {any} */ (trap({ disposition: 2, kind: 5, cause: 13, guest: 3, path: 9 }));
  const text = () => 'vm-3 MMIO uart+0x5 read';
  assert.ok(!restricts(everything()));
  assert.ok(matches(record, everything(), text));
  for (const [field, good, bad] of /** @type {[string, any, any][]} */ ([
    ['dispositions', new Set([2]), new Set([1])], ['kind', 5, 0], ['cause', 13, 2], ['guest', 3, 1], ['path', 9, 0], ['text', 'READ mmio', 'mmio write'],
  ])) {
    assert.ok(restricts({ ...everything(), [field]: good }), field);
    assert.ok(matches(record, { ...everything(), [field]: good }, text), field);
    assert.ok(!matches(record, { ...everything(), [field]: bad }, text), field);
  }
});

test('the feed is in order, holds nothing twice, and shows gaps exactly', () => {
  const feed = new Feed(100);
  const make = (/** @type {number} */ guest, /** @type {number} */ sequence, /** @type {number} */ position) => /** @type {any} */ (trap({ guest, sequence, position }));
  feed.add([make(1, 5, 50), make(1, 6, 60), make(2, 1, 55)]);
  assert.equal(feed.add([make(1, 6, 60)]), 0);
  feed.add([make(1, 12, 120)]);
  const all = () => feed.items(() => true, () => true);
  assert.deepEqual(all().map((item) => (isGap(item) ? `gap ${item.gap}` : `${item.guest}.${item.sequence}`)), ['1.5', '2.1', '1.6', 'gap 5', '1.12']);
  feed.add([7, 8, 9, 10, 11].map((sequence) => make(1, sequence, sequence * 10)));
  assert.ok(!all().some(isGap));
  assert.equal(feed.oldest(1), 5);
  assert.equal(feed.oldest(9), null);
});

test('a full feed drops the end that is not looked at', () => {
  const feed = new Feed(3);
  const make = (/** @type {number} */ sequence) => /** @type {any} */ (trap({ sequence, position: sequence }));
  feed.add([1, 2, 3, 4].map(make));
  assert.deepEqual(feed.records.map((record) => record.sequence), [2, 3, 4]);
  feed.add([make(1)], 'newest');
  assert.deepEqual(feed.records.map((record) => record.sequence), [1, 2, 3]);
  assert.equal(feed.add([make(4)], 'oldest'), 1, 'a dropped record may come back');
});

test('visible rows cover the viewport and stay within the list', () => {
  assert.deepEqual(visibleRows(0, 260, 26, 100, 0), { first: 0, last: 10 });
  assert.deepEqual(visibleRows(2500, 260, 26, 100, 2), { first: 94, last: 100 });
  assert.deepEqual(visibleRows(9999, 260, 26, 3), { first: 3, last: 3 });
});

test('hex rows mark what is not mapped, page by page', () => {
  const bytes = new Uint8Array(32).map((_, index) => 0x41 + index);
  const [first, second] = hexdump(0x80200ff0n, bytes, [true, false]);
  assert.equal(first.address, 0x80200ff0n);
  assert.deepEqual(first.hex.slice(0, 3), ['41', '42', '43']);
  assert.equal(first.ascii, 'ABCDEFGHIJKLMNOP');
  assert.deepEqual(new Set(second.hex), new Set(['--']));
});

test('memory moves by rows and never leaves 64 bits', () => {
  assert.equal(rowStart(0x1234n), 0x1230n);
  assert.equal(moved(0x100n, -100, 8), 0n);
  assert.equal(moved(2n ** 64n - 1n, 100, 16), 2n ** 64n - 256n);
});

test('an Sv39 address is taken apart as the manual does', () => {
  assert.deepEqual(sv39(0xffffffc000201abcn), { vpn: [256, 1, 1], offset: 0xabc, canonical: true });
  assert.equal(sv39(0x0000008000000000n).canonical, false);
});

test('the timeline keeps positions under the pointer while zooming and stays in the history', () => {
  const history = { begin: 0, end: 1_000_000 };
  const view = { begin: 400_000, end: 600_000 };
  assert.equal(toPosition(view, 1000, toPixel(view, 1000, 512_345)), 512_345);
  const closer = zoomed(view, 0.5, 450_000, history);
  assert.ok(Math.abs(toPixel(view, 1000, 450_000) - toPixel(closer, 1000, 450_000)) < 1e-6);
  assert.equal(panned(view, -10, history).begin, 0);
  const all = inside({ begin: 0, end: Infinity }, history);
  assert.ok(all.begin === 0 && all.end >= history.end && all.end < history.end * 1.1);
  assert.ok(inside(view, { begin: 0, end: 0 }).end > 0, 'an empty history still has a window');
  const followed = following({ begin: 0, end: 100_000 }, 900_000, history);
  assert.ok(followed.begin < 900_000 && followed.end > 900_000 && followed.end - followed.begin === 100_000);
});

test('axis labels are round numbers within the view', () => {
  for (const [begin, end] of [[0, 100], [3, 7919], [999_950, 1_000_050], [0, 5e12]]) {
    const labels = ticks({ begin, end }, 8);
    assert.ok(labels.length >= 2 && labels.length <= 20, `${begin}..${end}: ${labels.length}`);
    for (const label of labels) assert.ok(label >= begin && label <= end && Number.isInteger(label));
  }
});

test('neighbours and marks near the pointer', () => {
  /** @type {import('../../static/js/panels/scale.js').Mark[]} */
  const marks = [[10, 0, 1, 0, 0, 1], [20, 0, 2, 0, 0, 1], [30, 0, 1, 0, 0, 2]];
  assert.equal(neighbour(marks, 10, 1)?.[0], 20);
  assert.equal(neighbour(marks, 10, 1, 1)?.[0], 30);
  assert.equal(neighbour(marks, 10, -1), null);
  assert.equal(neighbour(marks, 100, -1)?.[0], 30);
  assert.equal(markAt(marks, { begin: 0, end: 100 }, 100, 22, 5, null)?.[0], 20);
  assert.equal(markAt(marks, { begin: 0, end: 100 }, 100, 22, 5, 1), null);
});

test('input is cut below the limit and keeps every byte in order', () => {
  const pieces = [new Uint8Array(5000).fill(1), new Uint8Array(0), new Uint8Array(4000).fill(2)];
  const commands = inputCommands(pieces);
  assert.ok(commands.every((data) => data.length > 0 && data.length <= INPUT_BYTES));
  assert.deepEqual(Buffer.concat(commands), Buffer.concat(pieces));
  assert.deepEqual(inputCommands([]), []);
});

test('console output is bounded per guest and told to its readers', () => {
  const log = new ConsoleLog();
  /** @type {number[]} */
  const seen = [];
  log.readers.add({ output: (guest) => seen.push(guest), cleared: () => seen.push(-1) });
  for (let i = 0; i < 100; i++) log.append(1, new Uint8Array(4096));
  const size = log.chunks(1).reduce((sum, chunk) => sum + chunk.length, 0);
  assert.ok(size >= SCROLLBACK_BYTES && size < SCROLLBACK_BYTES + 4096);
  log.append(2, new Uint8Array(1));
  log.keep(new Set([2]));
  assert.equal(log.chunks(1).length, 0);
  log.clear();
  assert.deepEqual([seen.length, seen.at(-1)], [102, -1]);
});

test('rates are exact, without holes, and leave out the bin that is still open', () => {
  const rates = new Rates();
  rates.clear(2);
  rates.begin(10 * BIN_MS);
  rates.add(1, 30);
  assert.equal(Math.max(...rates.columns()[2]), 0);
  rates.begin(11 * BIN_MS);
  rates.add(1, 5);
  rates.add(7, 5);
  assert.equal(rates.columns()[2].at(-1), (30 * 1000) / BIN_MS);
  assert.deepEqual(rates.lastSecond(), [0, 30]);
  rates.begin(11 * BIN_MS + 500 * BIN_MS);
  assert.equal(Math.max(...rates.columns().slice(1).flat()), 0);
  assert.equal(rates.columns()[0].length, BINS - 1);
});

test('assembly is taken apart by the shape of its lines', () => {
  /** @param {string} line @returns {[string, string][]} what has a colour, with the tag's name */
  const tokens = (line) => {
    const state = riscv.startState();
    let at = 0;
    const stream = {
      sol: () => at === 0,
      eatSpace: () => { const from = at; while (line[at] === ' ') at++; return at > from; },
      match: (/** @type {RegExp} */ pattern) => { const found = pattern.exec(line.slice(at)); if (found) at += found[0].length; return found; },
      skipToEnd: () => { at = line.length; },
      next: () => line[at++],
    };
    /** @type {[string, string][]} */
    const seen = [];
    while (at < line.length) {
      const from = at;
      const tag = riscv.token(stream, state);
      assert.ok(at > from, `no progress in ${line} at ${from}`);
      if (tag) seen.push([line.slice(from, at), tag]);
    }
    return seen;
  };
  assert.deepEqual(tokens('1:  lbu a1, -4(sp) # next'), [
    ['1:', 'labelName'], ['lbu', 'keyword'], ['a1', 'variableName'], ['-4', 'number'], ['sp', 'variableName'], ['# next', 'comment'],
  ]);
  assert.deepEqual(tokens('    .asciz "a # \\" b"'), [['.asciz', 'meta'], ['"a # \\" b"', 'string']]);
  assert.deepEqual(tokens(' lui t0, %hi(UART); j 1b'), [
    ['lui', 'keyword'], ['t0', 'variableName'], ['%hi', 'meta'], ['j', 'keyword'], ['1b', 'labelName'],
  ]);
  assert.deepEqual(tokens(' amoswap.w.aq x31, s11, (t7)').slice(0, 3), [['amoswap.w.aq', 'keyword'], ['x31', 'variableName'], ['s11', 'variableName']]);
});

test('references of a walk in two stages are numbered in the order in which the hart makes them', () => {
  assert.deepEqual(walkOrder(3, [3, 3, 3, 3]), { guest: [4, 8, 12], second: [1, 5, 9, 13] });
  assert.deepEqual(walkOrder(3, [3]), { guest: [4, 5, 6], second: [1] });
  assert.deepEqual(walkOrder(0, [3]), { guest: [], second: [1] });
  assert.deepEqual(walkOrder(3, []), { guest: [1, 2, 3], second: [] });
  assert.deepEqual(missCosts(3), { native: 3, shadow: 3, second: 15 });
  assert.deepEqual(missCosts(0), { native: 0, shadow: 3, second: 3 });
});

test('a walk without a mapping says why, by the rules of Sv39', () => {
  const step = (/** @type {number} */ level, /** @type {bigint} */ pte) => ({ level, table: 0, index: 0, address: 0, pte, flags: '', leaf: false });
  assert.equal(entryKind(step(2, 0x20000001n)), 'pointer');
  assert.equal(entryKind(step(1, 0x200000cfn)), 'leaf');
  assert.equal(entryKind(step(1, 0x200000cen)), 'invalid');
  assert.equal(whyUnmapped([], 0x8000000000n), 'noncanonical');
  assert.equal(whyUnmapped([], 0x1000n), 'outside');
  assert.equal(whyUnmapped([step(2, 1n), step(1, 0n)], 0n), 'invalid');
  assert.equal(whyUnmapped([step(2, 5n)], 0n), 'reserved');
  assert.equal(whyUnmapped([step(0, 1n)], 0n), 'deep');
  assert.equal(whyUnmapped([step(2, 1n)], 0n), 'outside');
  assert.equal(whyUnmapped([step(2, 0x4cfn)], 0n), 'misaligned');
});
