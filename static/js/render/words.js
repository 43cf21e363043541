/**
 * The sentences that shapes and labels show about live figures: short, in the reader's language, from the trace's own words
 * (panels/describe.js turns a record into a sentence; this file never does so a second time).
 */
import { causeName, describe } from '../panels/describe.js';
import { hex } from '../panels/format.js';
import { sessionOf } from '../panels/session.js';

/** @typedef {import('../records.js').TrapRecord} TrapRecord */

/** The latest trap changes many times a second; its sentence stays this long, so that it can be read. */
const LAST_MS = 600;

export class Words {
  /** @param {import('../app.js').App} app */
  constructor(app) {
    this.app = app;
    this.context = sessionOf(app).context;
    /** @type {Map<string, {text: string, until: number, trap: TrapRecord}>} */
    this.lasts = new Map();
  }

  forget() {
    this.lasts.clear();
  }

  /** Few enough traps that each one can be read. */
  get slow() {
    const { store } = this.app;
    return !store.running || Number(store.document?.speed) > 0;
  }

  /** Where a guest is: symbol or address; nothing while it runs too fast for that to mean anything. @param {number} guest */
  at(guest) {
    const live = this.app.store.guests.get(guest);
    if (!live || !this.slow) return '';
    return this.context.place(guest, live.pc) ?? hex(live.pc);
  }

  /** Why a guest was ended. @param {number} guest */
  failure(guest) {
    const failure = this.app.store.guests.get(guest)?.failure;
    return this.app.t(failure ? `failure.${failure.key}` : 'state.failed', failure?.params);
  }

  /**
   * The figures of a host's band: how many traps a second pass it, and what became of them.
   * @param {number} host @param {string} station
   * @returns {[key: string, perSecond: number][]}
   */
  hostFigures(host, station) {
    const { store } = this.app;
    const { levels, paths, dispositions } = store.schema;
    let passing = 0;
    let emulated = 0;
    let injected = 0;
    for (const flow of store.flows.values()) {
      if (store.guest(flow.guest)?.host !== host) continue;
      if (!paths[flow.path].some((level) => levels[level].name === station)) continue;
      passing += flow.rate;
      if (dispositions[flow.disposition] === 'emulated') emulated += flow.rate;
      if (dispositions[flow.disposition] === 'injected') injected += flow.rate;
    }
    if (station === 'device_model') return [['figure.forwarded', passing]];
    if (station === 'hypervisor' || station === 'vmm') return [['figure.exits', passing], ['figure.emulated', emulated], ['figure.injected', injected]];
    return [['figure.served', passing]];
  }

  /** The latest trap that passed a band of a host, as a sentence. @param {number} host @param {string} station */
  last(host, station) {
    const { store } = this.app;
    const { levels, paths } = store.schema;
    /** @type {TrapRecord | null} */
    let latest = null;
    for (const guest of store.guestsOf(host)) {
      const trap = store.guests.get(guest.id)?.last;
      if (!trap || (latest && latest.position >= trap.position)) continue;
      if (paths[trap.path].some((level) => levels[level].name === station)) latest = trap;
    }
    const key = `${host} ${station}`;
    const known = this.lasts.get(key);
    const now = performance.now();
    if (!latest || (known && (known.trap === latest || now < known.until))) return known?.text ?? '';
    const text = this.app.t('band.last', { cause: causeName(this.context, latest.cause), what: describe(latest, this.context) });
    this.lasts.set(key, { text, trap: latest, until: store.running ? now + LAST_MS : 0 });
    return text;
  }

  /** The two lines beside a particle. @param {TrapRecord} trap @returns {[title: string, what: string]} */
  label(trap) {
    return [causeName(this.context, trap.cause), describe(trap, this.context)];
  }

  /** The tooltip of a particle. @param {TrapRecord} trap @returns {string[]} */
  tip(trap) {
    const { schema } = this.app.store;
    const disposition = schema.dispositions[trap.disposition];
    return [
      `${causeName(this.context, trap.cause)} · ${this.app.t(`disposition.${disposition}`)}`,
      describe(trap, this.context),
      this.app.t('tip.trap', {
        guest: this.app.store.guest(trap.guest)?.name ?? '', place: this.context.place(trap.guest, trap.pc) ?? hex(trap.pc),
        executed: trap.executed,
      }),
      this.app.t('tip.trap-cost', { cost: trap.cost }),
    ];
  }
}
