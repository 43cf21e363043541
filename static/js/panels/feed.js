/**
 * The trap feed's list: records in the order in which they happened, each once, with a gap wherever traps of a guest are
 * known to have happened in between but were not sent (a tick carries a bounded sample).
 * Invariants: sorted by position, then guest, then sequence; no record twice; at most `capacity` records, the oldest go first.
 * A gap's size is exact: sequences of a guest count 1, 2, 3 ... Pure.
 * @typedef {import('../records.js').TrapRecord} TrapRecord
 * @typedef {{gap: number, guest: number, before: number}} Gap `gap` traps of `guest` just before sequence `before`
 * @typedef {TrapRecord | Gap} Item
 */

/** @param {TrapRecord} a @param {TrapRecord} b */
export const inOrder = (a, b) => Number(a.position) - Number(b.position) || a.guest - b.guest || Number(a.sequence) - Number(b.sequence);

/** @param {Item} item @returns {item is Gap} */
export const isGap = (item) => 'gap' in item;

/** @param {TrapRecord} record */
export const keyOf = (record) => record.guest * 2 ** 37 + Number(record.sequence);

export class Feed {
  /** @param {number} capacity */
  constructor(capacity) {
    this.capacity = capacity;
    /** @type {TrapRecord[]} */
    this.records = [];
    /** @type {Set<number>} */
    this.keys = new Set();
    this.version = 0;
  }

  clear() {
    this.records = [];
    this.keys.clear();
    this.version++;
  }

  /**
   * @param {TrapRecord[]} more in any order; those already here are ignored
   * @param {'oldest' | 'newest'} [drop] which end goes when there are too many
   * @returns {number} how many were new
   */
  add(more, drop = 'oldest') {
    const fresh = more.filter((record) => !this.keys.has(keyOf(record)));
    if (fresh.length === 0) return 0;
    fresh.sort(inOrder);
    const last = this.records.at(-1);
    for (const record of fresh) this.keys.add(keyOf(record));
    const merge = last !== undefined && inOrder(fresh[0], last) < 0;
    this.records.push(...fresh);
    if (merge) this.records.sort(inOrder);
    const excess = this.records.length - this.capacity;
    if (excess > 0) {
      const gone = drop === 'oldest' ? this.records.splice(0, excess) : this.records.splice(-excess);
      for (const record of gone) this.keys.delete(keyOf(record));
    }
    this.version++;
    return fresh.length;
  }

  /** The oldest sequence here of a guest. @param {number} guest @returns {number | null} */
  oldest(guest) {
    const record = this.records.find((candidate) => candidate.guest === guest);
    return record ? Number(record.sequence) : null;
  }

  /**
   * The rows to show: the records that `wanted` accepts, and gaps where `guests` accepts the guest.
   * @param {(record: TrapRecord) => boolean} wanted
   * @param {(guest: number) => boolean} guests
   * @returns {Item[]}
   */
  items(wanted, guests) {
    /** @type {Item[]} */
    const items = [];
    /** @type {Map<number, number>} */
    const latest = new Map();
    for (const record of this.records) {
      const sequence = Number(record.sequence);
      const previous = latest.get(record.guest);
      latest.set(record.guest, sequence);
      if (previous !== undefined && sequence > previous + 1 && guests(record.guest)) {
        items.push({ gap: sequence - previous - 1, guest: record.guest, before: sequence });
      }
      if (wanted(record)) items.push(record);
    }
    return items;
  }
}

/**
 * The rows of a list of fixed row height that a viewport shows.
 * @param {number} scroll px @param {number} height px @param {number} rowHeight px @param {number} count @param {number} [margin] rows
 * @returns {{first: number, last: number}} `last` is exclusive
 */
export function visibleRows(scroll, height, rowHeight, count, margin = 4) {
  const first = Math.max(0, Math.min(count, Math.floor(scroll / rowHeight) - margin));
  return { first, last: Math.max(first, Math.min(count, Math.ceil((scroll + height) / rowHeight) + margin)) };
}
