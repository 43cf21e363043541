/**
 * What the page knows of its lab: the document, every guest's and host's status, exact totals, and the latest traps.
 * Three reducers change it (keyframe, tick, document), each from one message of the server; nothing is ever guessed
 * ahead of the server. Pure: no DOM, no socket, no clock (the caller says what time it is).
 */
import { Emitter } from './events.js';
import { RecordReader, TrapRing } from './records.js';
import { GDB_STATES, viewColumns } from './protocol.js';

/**
 * @typedef {import('./protocol.js').Schema} Schema
 * @typedef {import('./protocol.js').LabDocument} LabDocument
 * @typedef {import('./protocol.js').Keyframe} Keyframe
 * @typedef {import('./protocol.js').Tick} Tick
 * @typedef {import('./protocol.js').Notice} Notice
 * @typedef {import('./records.js').TrapRecord} TrapRecord
 * @typedef {import('./migrations.js').Migration} Migration
 *
 * @typedef {{id: number, state: number, level: number, pc: bigint, instructions: number, exits: number, traps: number, ran: number,
 *            stolen: number, present: number, swapped: number, ballooned: number, exitStatus: number | null, failure: {key: string, params: Record<string, string | number>} | null,
 *            rates: Rates, history: Window, last: TrapRecord | null, trapped: boolean, trappedAt: number}} GuestLive
 * `exits` are VM exits only, so none on bare metal; `traps` is the exact number of records, on any host. Rates are over about
 * the last second: `instructions` and `traps` per second of wall time, `perVirtualSecond` the same traps over the host's clock.
 * `present`, `swapped`, `ballooned`: pages in frames of the host, on its swap device, and in the balloon as its driver says.
 * `trappedAt`: instructions retired when the guest last trapped of its own accord, as far as this page has seen.
 * @typedef {{instructions: number, traps: number, perVirtualSecond: number, ran: number, stolen: number}} Rates
 * `ran` and `stolen`: of the host's clock, the part in which the guest's vCPUs had harts, and waited for them (1: one vCPU all
 * the time); they stay as they are while nothing runs. Beside the rates the same since the guest was started, in virtual ns.
 * @typedef {{id: number, time: number, busy: number, memoryUsedMib: number, framesUsed: number,
 *            framesSaved: number, pagesSwapped: number}} HostLive  time in virtual ns, busy 0..1
 * @typedef {{guest: number, kind: number, cause: number, path: number, disposition: number, count: number}} Total
 * A flow is what passes along one path of one guest with one disposition: traps a second of wall time, and how many of
 * these the server's sample showed one by one.
 * @typedef {{guest: number, path: number, disposition: number, rate: number, pending: number, sampled: number, sampledPending: number}} Flow
 *
 * @typedef {{tick: Tick, document: LabDocument, keyframe: Keyframe, traps: TrapRecord[], console: [number, ArrayBuffer][],
 *            notice: Notice, migration: Migration, quiet: null}} StoreEvents
 * `migration`: one had an event; `Store.migrations` has the latest of each guest.
 */

/** How many traps are kept for the feed and the timeline. */
export const RING_CAPACITY = 4096;
/** A guest that retires more instructions than this without a trap computes or spins; the page says so. */
export const UNTRAPPED_INSTRUCTIONS = 10_000_000;
/** A rate is measured over this much wall time, ms. */
const WINDOW_MS = 1000;
/** A running lab in which every guest waits sends no ticks: after so long without one, nothing is happening. */
const SILENCE_MS = 1500;

/** The samples of one guest's counters that lie within the window. */
class Window {
  constructor() {
    /** @type {{now: number, virtual: number, instructions: number, traps: number, ran: number, stolen: number}[]} */
    this.samples = [];
  }

  /**
   * @param {number} now wall ms @param {number} virtual ns @param {number} instructions @param {number} traps
   * @param {number} ran ns @param {number} stolen ns @param {Rates} rates receives the result
   */
  push(now, virtual, instructions, traps, ran, stolen, rates) {
    const { samples } = this;
    samples.push({ now, virtual, instructions, traps, ran, stolen });
    while (samples.length > 2 && samples[1].now <= now - WINDOW_MS) samples.shift();
    const first = samples[0];
    const elapsed = (now - first.now) / 1000;
    const virtualElapsed = (virtual - first.virtual) / 1e9;
    rates.instructions = elapsed > 0 ? Math.max(0, instructions - first.instructions) / elapsed : 0;
    rates.traps = elapsed > 0 ? Math.max(0, traps - first.traps) / elapsed : 0;
    rates.perVirtualSecond = virtualElapsed > 0 ? Math.max(0, traps - first.traps) / virtualElapsed : 0;
    if (virtual > first.virtual) {
      rates.ran = Math.max(0, ran - first.ran) / (virtual - first.virtual);
      rates.stolen = Math.max(0, stolen - first.stolen) / (virtual - first.virtual);
    }
  }
}

/** @typedef {{guest: number, address: string, port: number, state: 'waiting' | 'held' | 'running'}} Gdb */

/** @param {import('./protocol.js').GdbRow | null | undefined} row @returns {Gdb | null} */
function gdbOf(row) {
  if (!row) return null;
  const [guest, address, port, state] = row;
  return { guest, address, port, state: GDB_STATES[state] };
}

/** @param {number} id @returns {GuestLive} */
function newGuest(id) {
  return {
    id, state: 0, level: 0, pc: 0n, instructions: 0, exits: 0, traps: 0, exitStatus: null, failure: null,
    ran: 0, stolen: 0, present: 0, swapped: 0, ballooned: 0,
    rates: { instructions: 0, traps: 0, perVirtualSecond: 0, ran: 0, stolen: 0 }, history: new Window(), last: null, trapped: false, trappedAt: 0,
  };
}

/** @extends {Emitter<StoreEvents>} */
export class Store extends Emitter {
  constructor() {
    super();
    /** @type {LabDocument | null} */
    this.document = null;
    this.index = indexOf(null);
    /** @type {RecordReader | null} */
    this.reader = null;
    this.revision = 0;
    this.position = 0;
    this.time = 0;
    this.running = false;
    this.history = { begin: 0, end: 0 };
    /** @type {Map<number, GuestLive>} */
    this.guests = new Map();
    /** @type {Map<number, HostLive>} */
    this.hosts = new Map();
    /** @type {Map<number, Map<number, Total>>} by guest, then by kind, cause, path and disposition */
    this.totals = new Map();
    /** @type {Map<number, Flow>} */
    this.flows = new Map();
    /** @type {TrapRing} */
    this.traps = new TrapRing(RING_CAPACITY);
    /** @type {Map<number, Migration>} by guest */
    this.migrations = new Map();
    /** @type {Record<string, number>} number of symbols by image */
    this.symbols = {};
    this.lastTick = 0;
    /** @type {Gdb | null} the port that gdb has into this lab */
    this.gdb = null;
  }

  /** The enumerations of the trace. Throws before the first keyframe. */
  get schema() {
    if (!this.reader) throw new Error('no keyframe has arrived yet');
    return this.reader.schema;
  }

  /** @param {number} id */
  host(id) {
    return this.index.hosts.get(id);
  }

  /** @param {number} id */
  guest(id) {
    return this.index.guests.get(id);
  }

  /** @param {string} id */
  image(id) {
    return this.index.images.get(id);
  }

  /** @param {number} host @returns {import('./protocol.js').Guest[]} */
  guestsOf(host) {
    return this.index.guestsOf.get(host) ?? [];
  }

  /** @param {number} id @returns {GuestLive} */
  live(id) {
    let live = this.guests.get(id);
    if (!live) {
      live = newGuest(id);
      this.guests.set(id, live);
    }
    return live;
  }

  /**
   * Replace everything by what a joining or returning client is told.
   * @param {Keyframe} keyframe @param {number} revision @param {number} now wall ms
   */
  keyframe(keyframe, revision, now) {
    this.reader = new RecordReader(keyframe.schema);
    this.revision = revision;
    this.position = keyframe.position;
    this.time = keyframe.time;
    this.running = keyframe.running;
    this.history = keyframe.history;
    this.symbols = keyframe.symbols;
    this.gdb = gdbOf(keyframe.gdb);
    this.migrations = new Map((keyframe.migrations ?? []).map((row) => [row.guest, row]));
    this.lastTick = now;
    this.guests.clear();
    this.totals.clear();
    this.flows.clear();
    this.traps.clear();
    for (const [id, status] of Object.entries(keyframe.status)) {
      const live = this.live(Number(id));
      live.state = status.state;
      live.level = status.level;
      live.pc = BigInt(status.pc);
      live.instructions = live.trappedAt = Number(status.instructions);
      live.exits = Number(status.exits);
      live.ran = Number(status.ran);
      live.stolen = Number(status.stolen);
      live.present = status.present;
      live.swapped = status.swapped;
      live.ballooned = status.ballooned;
      live.exitStatus = status.exit_status;
      live.failure = status.failure;
    }
    this.setDocument(keyframe.document, revision);
    this.setHosts(keyframe.hosts);
    this.addCounts(keyframe.totals, false);
    this.addTraps(keyframe.records);
    this.emit('keyframe', keyframe);
    this.emit('console', keyframe.console);
  }

  /** @param {LabDocument} document @param {number} revision */
  setDocument(document, revision) {
    const known = this.index.guests;
    this.document = document;
    this.index = indexOf(document);
    this.revision = revision;
    this.running = document.running;
    const { guests, hosts } = this.index;
    // Only what was known and is no more: a tick may tell of a guest before the document that has it.
    const gone = new Set([...known.keys()].filter((id) => !guests.has(id)));
    for (const id of gone) {
      this.guests.delete(id);
      this.migrations.delete(id);
      this.totals.delete(id);
    }
    for (const [key, flow] of this.flows) if (gone.has(flow.guest)) this.flows.delete(key);
    for (const id of guests.keys()) this.live(id);
    for (const id of this.hosts.keys()) if (!hosts.has(id)) this.hosts.delete(id);
    this.emit('document', document);
  }

  /** @param {Tick} tick @param {number} now wall ms */
  tick(tick, now) {
    this.position = tick.position;
    this.time = tick.time;
    this.running = tick.running;
    this.history.end = Math.max(this.history.end, tick.position);
    this.gdb = gdbOf(tick.gdb);
    this.setHosts(tick.hosts);
    this.addCounts(tick.counts, true);
    const guests = viewColumns('guests', tick.guests);
    for (let i = 0; i < guests.length; i += 1) {
      const live = this.live(guests.id[i]);
      live.state = guests.state[i];
      live.level = guests.level[i];
      live.pc = guests.pc[i];
      live.instructions = Number(guests.instructions[i]);
      live.exits = Number(guests.exits[i]);
      live.ran = Number(guests.ran[i]);
      live.stolen = Number(guests.stolen[i]);
      live.present = guests.present[i];
      live.swapped = guests.swapped[i];
      live.ballooned = guests.ballooned[i];
      const host = this.guest(live.id)?.host;
      const virtual = (host === undefined ? undefined : this.hosts.get(host)?.time) ?? tick.time;
      if (live.trapped || live.instructions < live.trappedAt) live.trappedAt = live.instructions;
      live.trapped = false;
      live.history.push(now, virtual, live.instructions, live.traps, live.ran, live.stolen, live.rates);
      if (live.state !== 3 && live.state !== 4) {
        live.exitStatus = null;
        live.failure = null;
      }
    }
    for (const row of tick.migrations ?? []) {
      this.migrations.set(row.guest, row);
      this.emit('migration', row);
    }
    const traps = this.addTraps(tick.sample);
    for (const { guest, path, disposition } of traps) {
      const flow = this.flows.get((guest * 256 + path) * 256 + disposition);
      if (flow) flow.sampledPending += 1;
    }
    this.settleFlows(now);
    if (!tick.running) this.quiet();
    for (const notice of tick.notices) this.notice(notice);
    this.emit('tick', tick);
    if (traps.length) this.emit('traps', traps);
    if (tick.console.length) this.emit('console', tick.console);
  }

  /** @param {Notice} notice */
  notice(notice) {
    const live = notice.guest ? this.guests.get(notice.guest) : undefined;
    if (live && notice.key === 'guest-stopped') live.exitStatus = Number(notice.params.status ?? 0);
    if (live && notice.key === 'guest-failed') live.failure = failureOf(notice);
    this.emit('notice', notice);
  }

  /** Called now and then: rates do not outlive what they measured. @param {number} now wall ms */
  silence(now) {
    if (!this.document || now - this.lastTick < SILENCE_MS) return;
    this.lastTick = Infinity;
    this.quiet();
    for (const host of this.hosts.values()) host.busy = 0;
    this.emit('quiet', null);
  }

  /** Rates fall to zero when nothing runs. */
  quiet() {
    this.flows.clear();
    for (const live of this.guests.values()) {
      live.rates.instructions = live.rates.traps = live.rates.perVirtualSecond = 0;
      live.history.samples.length = 0;
    }
  }

  /** @param {import('./protocol.js').Columns} columns */
  setHosts(columns) {
    const hosts = viewColumns('hosts', columns);
    for (let i = 0; i < hosts.length; i += 1) {
      const id = hosts.id[i];
      const live = this.hosts.get(id) ?? { id, time: 0, busy: 0, memoryUsedMib: 0, framesUsed: 0, framesSaved: 0, pagesSwapped: 0 };
      live.time = Number(hosts.time[i]);
      live.busy = hosts.busy_permille[i] / 1000;
      live.memoryUsedMib = hosts.memory_used_mib[i];
      live.framesUsed = hosts.frames_used[i];
      live.framesSaved = hosts.frames_saved[i];
      live.pagesSwapped = hosts.pages_swapped[i];
      this.hosts.set(id, live);
    }
  }

  /** @param {import('./protocol.js').Columns} columns @param {boolean} flowing count towards the flows' rates */
  addCounts(columns, flowing) {
    const counts = viewColumns('counts', columns);
    for (let i = 0; i < counts.length; i += 1) {
      const guest = counts.guest[i];
      const path = counts.path[i];
      const disposition = counts.disposition[i];
      this.live(guest).traps += counts.count[i];
      let byKey = this.totals.get(guest);
      if (!byKey) {
        byKey = new Map();
        this.totals.set(guest, byKey);
      }
      const key = ((counts.kind[i] * 256 + counts.cause[i]) * 256 + path) * 256 + disposition;
      const total = byKey.get(key);
      if (total) total.count += counts.count[i];
      else byKey.set(key, { guest, kind: counts.kind[i], cause: counts.cause[i], path, disposition, count: counts.count[i] });
      if (!flowing) continue;
      if (!this.hostsOwn(counts.kind[i], disposition)) this.live(guest).trapped = true;
      const flowKey = (guest * 256 + path) * 256 + disposition;
      const flow = this.flows.get(flowKey);
      if (flow) flow.pending += counts.count[i];
      else {
        this.flows.set(flowKey, { guest, path, disposition, rate: 0, pending: counts.count[i], sampled: 0, sampledPending: 0 });
      }
    }
  }

  /** An interrupt that the hypervisor handled for itself: the host's clock, and nothing that the guest did. @param {number} kind @param {number} disposition */
  hostsOwn(kind, disposition) {
    return this.schema.kinds[kind] === 'interrupt' && this.schema.dispositions[disposition] === 'emulated';
  }

  /** Instructions that a guest has retired since it last trapped of its own accord. @param {number} id */
  untrapped(id) {
    const live = this.guests.get(id);
    return live ? live.instructions - live.trappedAt : 0;
  }

  /** @param {number} now wall ms */
  settleFlows(now) {
    const elapsed = Math.min(Math.max(now - this.lastTick, 20), WINDOW_MS);
    this.lastTick = now;
    const weight = 1 - Math.exp(-elapsed / (WINDOW_MS * 0.7));
    for (const [key, flow] of this.flows) {
      flow.rate += ((flow.pending * 1000) / elapsed - flow.rate) * weight;
      flow.sampled += ((flow.sampledPending * 1000) / elapsed - flow.sampled) * weight;
      flow.pending = flow.sampledPending = 0;
      if (flow.rate < 0.05) this.flows.delete(key);
    }
  }

  /** @param {ArrayBuffer} buffer @returns {TrapRecord[]} */
  addTraps(buffer) {
    const traps = this.reader ? this.reader.read(buffer) : [];
    for (const trap of traps) {
      this.traps.push(trap);
      if (this.guests.has(trap.guest)) this.live(trap.guest).last = trap;
    }
    return traps;
  }
}

/** The document's rows by identifier. @param {LabDocument | null} document */
function indexOf(document) {
  /** @type {Map<number, import('./protocol.js').Guest[]>} */
  const guestsOf = new Map();
  for (const guest of document?.guests ?? []) {
    const peers = guestsOf.get(guest.host);
    if (peers) peers.push(guest);
    else guestsOf.set(guest.host, [guest]);
  }
  return {
    hosts: new Map(document?.hosts.map((host) => [host.id, host])),
    guests: new Map(document?.guests.map((guest) => [guest.id, guest])),
    images: new Map(document?.images.map((image) => [image.id, image])),
    guestsOf,
  };
}

/** @param {Notice} notice */
function failureOf(notice) {
  const { reason, ...params } = notice.params;
  return { key: String(reason ?? notice.key), params };
}
