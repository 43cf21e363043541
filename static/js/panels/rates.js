/**
 * Traps per wall-clock second by disposition over the last minute, from the exact counts of every tick.
 * Invariant: bins follow each other without holes; a bin in which nothing happened is zero, not missing. Pure: the caller has the clock.
 */
export const BIN_MS = 500;
export const BINS = 120;

export class Rates {
  constructor() {
    this.dispositions = 0;
    /** @type {number[][]} [disposition][bin], oldest first */
    this.bins = [];
    /** @type {number | null} number of the newest bin */
    this.newest = null;
  }

  /** @param {number} dispositions how many there are */
  clear(dispositions) {
    this.dispositions = dispositions;
    this.bins = Array.from({ length: dispositions }, () => new Array(BINS).fill(0));
    this.newest = null;
  }

  /** Open the bin of this moment. @param {number} now ms */
  begin(now) {
    const bin = Math.floor(now / BIN_MS);
    const newest = this.newest ?? bin;
    const passed = Math.min(Math.max(bin - newest, 0), BINS);
    for (const row of this.bins) {
      row.splice(0, passed);
      for (let i = 0; i < passed; i++) row.push(0);
    }
    this.newest = Math.max(bin, newest);
  }

  /** @param {number} disposition @param {number} count */
  add(disposition, count) {
    const row = this.bins[disposition];
    if (row) row[BINS - 1] += count;
  }

  /** Columns for a chart: seconds ago (negative), then traps a second per disposition; the open bin is left out. */
  columns() {
    const x = Array.from({ length: BINS - 1 }, (_, index) => ((index + 2 - BINS) * BIN_MS) / 1000);
    return [x, ...this.bins.map((row) => row.slice(0, -1).map((count) => (count * 1000) / BIN_MS))];
  }

  /** Traps in the last whole second, by disposition. */
  lastSecond() {
    const bins = 1000 / BIN_MS;
    return this.bins.map((row) => row.slice(-1 - bins, -1).reduce((sum, count) => sum + count, 0));
  }
}
