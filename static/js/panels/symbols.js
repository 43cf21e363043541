/**
 * Names of guest addresses: `trap_handler+0x3c` for the addresses that panels show. Asked of the lab in batches, at most one
 * question under way, and remembered by image, because all guests of an image share their symbols.
 * @typedef {import('../app.js').App} App
 */
import { word } from './format.js';

const BATCH = 100;
const REMEMBERED = 20_000;

export class Places {
  /** @param {Pick<App, 'store' | 'query'>} app @param {() => void} found called when names have arrived */
  constructor(app, found) {
    this.app = app;
    this.found = found;
    /** @type {Map<string, string | null>} */
    this.names = new Map();
    /** @type {Map<string, {guest: number, address: bigint}>} */
    this.wanted = new Map();
    this.asking = false;
    this.version = 0;
  }

  /** @param {number} guest @param {bigint} address */
  key(guest, address) {
    return `${this.app.store.guest(guest)?.image ?? `guest ${guest}`} ${address}`;
  }

  /** @param {number} guest @param {bigint} address @returns {string | null} null: no symbol there, or not known yet */
  place = (guest, address) => {
    const at = word(address);
    const key = this.key(guest, at);
    const known = this.names.get(key);
    if (known !== undefined) return known;
    if (this.app.store.guest(guest)) {
      this.wanted.set(key, { guest, address: at });
      void this.ask();
    }
    return null;
  };

  async ask() {
    if (this.asking) return;
    this.asking = true;
    await Promise.resolve();
    while (this.wanted.size > 0) {
      const guest = [...this.wanted.values()].at(-1)?.guest ?? 0;
      const batch = [...this.wanted].filter(([, want]) => want.guest === guest).slice(-BATCH);
      for (const [key] of batch) this.wanted.delete(key);
      try {
        const { places } = await this.app.query({ type: 'symbols', guest, addresses: batch.map(([, want]) => want.address) });
        if (this.names.size > REMEMBERED) this.names.clear();
        batch.forEach(([key], index) => this.names.set(key, places[index] ?? null));
      } catch {
        for (const [key] of batch) this.names.set(key, null);
      }
      this.version++;
      this.found();
    }
    this.asking = false;
  }
}
