/**
 * Raw trace records as objects, by the layout the server sent with the keyframe: no offset is known here.
 * Addresses and operands are BigInt (exact); counters are Number (below 2^53 for the life of a lab).
 */

/**
 * @typedef {{sequence: number, time: number, position: number, pc: bigint, value: bigint, a: bigint, b: bigint,
 *            executed: number, cost: number, instruction: number, host: number, guest: number, vcpu: number, kind: number,
 *            cause: number, path: number, disposition: number, action: number, from_level: number, to_level: number}} TrapRecord
 */

const COUNTERS = new Set(['sequence', 'time', 'position']);

export class RecordReader {
  /** @param {import('./protocol.js').Schema} schema */
  constructor(schema) {
    this.schema = schema;
    this.fields = Object.entries(schema.fields).map(([name, [offset, bytes]]) => ({ name, offset, bytes }));
  }

  /**
   * @param {ArrayBuffer} buffer whole records, one after another
   * @returns {TrapRecord[]} in the buffer's order
   */
  read(buffer) {
    const view = new DataView(buffer);
    const traps = [];
    for (let start = 0; start + this.schema.size <= buffer.byteLength; start += this.schema.size) {
      traps.push(this.at(view, start));
    }
    return traps;
  }

  /** @param {DataView} view @param {number} start @returns {TrapRecord} */
  at(view, start) {
    /** @type {Record<string, number | bigint>} */
    const trap = {};
    for (const { name, offset, bytes } of this.fields) {
      const place = start + offset;
      if (bytes === 8) {
        const value = view.getBigUint64(place, true);
        trap[name] = COUNTERS.has(name) ? Number(value) : value;
      } else if (bytes === 4) trap[name] = view.getUint32(place, true);
      else if (bytes === 2) trap[name] = view.getUint16(place, true);
      else trap[name] = view.getUint8(place);
    }
    return /** @type {TrapRecord} */ (/** @type {unknown} */ (trap));
  }
}

/**
 * The latest `capacity` traps, oldest first by index.
 * `total` counts everything ever pushed since `clear`, so that a reader can tell what is new.
 */
export class TrapRing {
  /** @param {number} capacity */
  constructor(capacity) {
    this.capacity = capacity;
    /** @type {TrapRecord[]} */
    this.slots = [];
    this.total = 0;
  }

  clear() {
    this.slots.length = 0;
    this.total = 0;
  }

  get length() {
    return Math.min(this.total, this.capacity);
  }

  /** @param {TrapRecord} trap */
  push(trap) {
    this.slots[this.total % this.capacity] = trap;
    this.total += 1;
  }

  /** @param {number} index 0 is the oldest held @returns {TrapRecord | undefined} */
  at(index) {
    if (index < 0 || index >= this.length) return undefined;
    return this.slots[(this.total - this.length + index) % this.capacity];
  }

  *[Symbol.iterator]() {
    for (let index = 0; index < this.length; index += 1) yield /** @type {TrapRecord} */ (this.at(index));
  }
}
