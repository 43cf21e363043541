/** A small lab for the tests of the page's pure modules, and a schema cut to what they use. */

/** @returns {import('../../static/js/protocol.js').LabDocument} */
export function labDocument() {
  return {
    name: 'Lab', speed: '10', unit: 'trap', running: true, undo: null, redo: null, link_gbit: 10,
    costs: { profile: 'adams-agesen-2006', overrides: {} },
    hosts: [
      { id: 1, name: 'host-1', x: 0, y: 0, harts: 1, memory_mib: 128, stack: 'kvm', technique: 'trap-and-emulate', switches: [], host_load: 0, scheduler: null, share_pages: false, overcommit: false },
      { id: 2, name: 'host-2', x: 600, y: 0, harts: 1, memory_mib: 64, stack: 'bare-metal', technique: null, switches: [], host_load: 0, scheduler: null, share_pages: false, overcommit: false },
    ],
    guests: [
      { id: 1, name: 'vm-1', host: 1, image: 'ringos', vcpus: 1, memory_mib: 16, arguments: '', weight: 256, cap: 0, balloon_mib: 0 },
      { id: 2, name: 'vm-2', host: 1, image: 'hello', vcpus: 1, memory_mib: 8, arguments: '', weight: 256, cap: 0, balloon_mib: 0 },
    ],
    images: [
      { id: 'hello', name: 'hello', builtin: true, size: 900, default_memory_mib: 8, kind: 'elf', arguments: '', title: null, title_key: null, source: null },
      { id: 'ringos', name: 'ringos', builtin: true, size: 41_000, default_memory_mib: 16, kind: 'elf', arguments: '', title: null, title_key: null, source: null },
    ],
  };
}

/** A migration of guest 1 in its second round. @returns {import('../../static/js/migrations.js').Migration} */
export function migration() {
  return {
    guest: 1, source: 1, target: 2, mode: 'pre-copy', link_gbit: 10, phase: 'copying', reason: '', begin: 0, end: 0, due: 300_000, downtime: 0,
    pages: 60, bytes: 246_240, fetched: 0, round_count: 2, rounds: [[0, 200_000, 50, 205_200, 10], [200_000, 300_000, 10, 41_040, null]],
  };
}

/** @type {import('../../static/js/protocol.js').Schema} */
export const SCHEMA = {
  size: 16,
  fields: { sequence: [0, 8], guest: [8, 2], path: [10, 1], disposition: [11, 1] },
  kinds: ['vm_exit', 'interrupt'], levels: ['user', 'kernel', 'kernel_deprivileged', 'hypervisor', 'device_model', 'host_kernel', 'firmware', 'hardware']
    .map((name) => ({ name, group: name })),
  dispositions: ['hardware', 'emulated', 'forwarded', 'injected', 'killed'], actions: [], paths: [[2, 3, 2], [2, 3, 4, 3, 2]],
  failures: ['trap-loop'], causes: {},
  stacks: { kvm: { type: 1, techniques: ['hardware-assist', 'trap-and-emulate'], scheduler: 'fair-share' }, 'bare-metal': { type: null, techniques: [], scheduler: null } },
  schedulers: ['credit', 'fair-share'], switches: {}, generations: [], workloads: { guests: ['ringos', 'ringos-pv'], counts: { syscall: 1000, disk: 100 }, disk: ['disk'] },
};

/** @param {[sequence: number, guest: number, path: number, disposition: number][]} rows */
export function records(rows) {
  const view = new DataView(new ArrayBuffer(SCHEMA.size * rows.length));
  rows.forEach(([sequence, guest, path, disposition], index) => {
    const at = index * SCHEMA.size;
    view.setBigUint64(at, BigInt(sequence), true);
    view.setUint16(at + 8, guest, true);
    view.setUint8(at + 10, path);
    view.setUint8(at + 11, disposition);
  });
  return view.buffer;
}

/** @param {[guest: number, kind: number, cause: number, path: number, disposition: number, count: number][]} rows */
export function counts(rows) {
  return {
    guest: Uint16Array.from(rows, (row) => row[0]).buffer, kind: Uint8Array.from(rows, (row) => row[1]).buffer,
    cause: Uint8Array.from(rows, (row) => row[2]).buffer, path: Uint8Array.from(rows, (row) => row[3]).buffer,
    disposition: Uint8Array.from(rows, (row) => row[4]).buffer, count: Uint32Array.from(rows, (row) => row[5]).buffer,
  };
}

/** @param {number} virtual ns @param {number} busy permille @param {number} used MiB; all of host 1 */
const hosts = (virtual, busy, used) => ({
  id: Uint16Array.of(1).buffer, time: BigUint64Array.of(BigInt(virtual)).buffer, busy_permille: Uint16Array.of(busy).buffer,
  memory_used_mib: Uint32Array.of(used).buffer, frames_used: Uint32Array.of(512).buffer, frames_saved: Uint32Array.of(64).buffer, pages_swapped: Uint32Array.of(32).buffer,
});

/** @param {Partial<import('../../static/js/protocol.js').Keyframe>} [change] @returns {import('../../static/js/protocol.js').Keyframe} */
export function keyframe(change = {}) {
  return {
    schema: SCHEMA, document: labDocument(), position: 100, time: 5000, running: true, history: { begin: 0, end: 100 },
    status: {
      1: { state: 1, level: 2, pc: 0xffffffff80200400n, instructions: 1000, exits: 10, ran: 4000, stolen: 1000, present: 40, swapped: 3, ballooned: 0, exit_status: null, failure: null },
      2: { state: 4, level: 2, pc: 0, instructions: 5, exits: 1, ran: 0, stolen: 0, present: 0, swapped: 0, ballooned: 0, exit_status: null, failure: { key: 'trap-loop', params: {} } },
    },
    totals: counts([[1, 0, 2, 0, 1, 10]]), hosts: hosts(5000, 0, 24), console: [], records: records([[9, 1, 0, 1], [10, 1, 0, 1]]), symbols: {},
    ...change,
  };
}

/**
 * @param {{n?: number, instructions?: number, exits?: number, virtual?: number, counted?: number, kind?: number, sample?: ArrayBuffer,
 *          notices?: import('../../static/js/protocol.js').Notice[], running?: boolean, state?: number, ran?: number, stolen?: number}} what of guest 1
 * @returns {import('../../static/js/protocol.js').Tick}
 */
export function tick({ n = 1, instructions = 1000, exits = 10, virtual = 5000, counted = 0, kind = 0, sample = new ArrayBuffer(0), notices = [], running = true, state = 1, ran = 4000, stolen = 1000 }) {
  return {
    n, position: 100 + n, time: virtual, running,
    guests: {
      id: Uint16Array.of(1).buffer, state: Uint8Array.of(state).buffer, level: Uint8Array.of(0).buffer, pc: BigUint64Array.of(2n ** 64n - 4n).buffer,
      instructions: BigUint64Array.of(BigInt(instructions)).buffer, exits: BigUint64Array.of(BigInt(exits)).buffer,
      ran: BigUint64Array.of(BigInt(ran)).buffer, stolen: BigUint64Array.of(BigInt(stolen)).buffer,
      present: Uint32Array.of(40).buffer, swapped: Uint32Array.of(3).buffer, ballooned: Uint32Array.of(0).buffer,
    },
    hosts: hosts(virtual, 250, 24),
    counts: counts(counted ? [[1, kind, 2, 0, 1, counted]] : []), sample, console: [], notices,
  };
}
