/**
 * What the panels keep for as long as the page lives, whether or not they are mounted: console output (a keyframe brings the
 * scrollback only once), exact trap rates, and the names of addresses. One per `App`.
 * @typedef {import('../app.js').App} App
 * @typedef {import('./describe.js').Context} Context
 */
import { viewColumns } from '../protocol.js';
import { ConsoleLog } from './console_log.js';
import { Rates } from './rates.js';
import { Places } from './symbols.js';

/** @type {WeakMap<App, Session>} */
const sessions = new WeakMap();

export class Session {
  /** @param {App} app */
  constructor(app) {
    this.consoles = new ConsoleLog();
    this.rates = new Rates();
    /** @type {Set<() => void>} */
    this.named = new Set();
    this.places = new Places(app, () => this.named.forEach((listener) => listener()));
    const { store } = app;
    store.on('keyframe', () => {
      this.consoles.clear();
      this.rates.clear(store.schema.dispositions.length);
    });
    store.on('console', (output) => output.forEach(([guest, bytes]) => this.consoles.append(guest, new Uint8Array(bytes))));
    store.on('document', (document) => this.consoles.keep(new Set(document.guests.map((guest) => guest.id))));
    store.on('tick', (tick) => {
      const counts = viewColumns('counts', tick.counts);
      this.rates.begin(performance.now());
      for (let i = 0; i < counts.length; i++) this.rates.add(counts.disposition[i], counts.count[i]);
    });
    /** @type {Context} what sentences about records need */
    this.context = {
      get schema() {
        return store.schema;
      },
      t: (key, params) => app.t(key, params),
      n: (value) => app.n(value),
      guestName: (guest) => store.guest(guest)?.name ?? `#${guest}`,
      place: this.places.place,
    };
  }
}

/** @param {App} app @returns {Session} */
export function sessionOf(app) {
  const known = sessions.get(app);
  if (known) return known;
  const session = new Session(app);
  sessions.set(app, session);
  return session;
}
