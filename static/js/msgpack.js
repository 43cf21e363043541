/**
 * MessagePack with exact 64-bit integers, and the Socket.IO parser built on it.
 *
 * Why our own: a guest's registers and addresses use all 64 bits, and the parser that Socket.IO publishes turns every
 * integer above 2^53 into a rounded number. Here an integer that a number holds exactly is a number, any other is a BigInt,
 * in both directions. The rest of MessagePack that Ringside uses: nil, booleans, float64, strings, bin (an ArrayBuffer
 * that owns its bytes), arrays and maps with string keys; extension types are refused.
 * Format: https://github.com/msgpack/msgpack/blob/master/spec.md. Pure apart from the parser's listeners.
 */

const UTF8 = new TextDecoder('utf-8');
const TO_UTF8 = new TextEncoder();
const DEEPEST = 64;

/** What a reader was given is not MessagePack, or uses what we refuse. */
export class MessageError extends Error {}

/**
 * Encode one value. Typed arrays and ArrayBuffers become bin; `undefined` becomes nil; a map's undefined entries are left out.
 * @param {unknown} value
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function encode(value) {
  let bytes = new Uint8Array(256);
  let view = new DataView(bytes.buffer);
  let length = 0;

  /** @param {number} more */
  function reserve(more) {
    if (length + more <= bytes.length) return;
    const larger = new Uint8Array(Math.max(bytes.length * 2, length + more));
    larger.set(bytes);
    bytes = larger;
    view = new DataView(bytes.buffer);
  }
  /** @param {number} byte */
  function u8(byte) {
    reserve(1);
    bytes[length++] = byte;
  }
  /** @param {number} tag @param {number} size @param {number} number */
  function sized(tag, size, number) {
    reserve(5);
    bytes[length++] = tag;
    if (size === 1) view.setUint8(length, number);
    else if (size === 2) view.setUint16(length, number);
    else view.setUint32(length, number);
    length += size;
  }
  /** @param {Uint8Array} block */
  function raw(block) {
    reserve(block.length);
    bytes.set(block, length);
    length += block.length;
  }
  /** @param {bigint} integer */
  function wide(integer) {
    reserve(9);
    bytes[length++] = integer < 0n ? 0xd3 : 0xcf;
    if (integer < 0n) view.setBigInt64(length, integer);
    else view.setBigUint64(length, integer);
    length += 8;
  }
  /** @param {number} number */
  function integer(number) {
    if (number >= 0 && number < 0x80) u8(number);
    else if (number < 0 && number >= -32) u8(number & 0xff);
    else if (number >= 0 && number <= 0xff) sized(0xcc, 1, number);
    else if (number >= 0 && number <= 0xffff) sized(0xcd, 2, number);
    else if (number >= 0 && number <= 0xffffffff) sized(0xce, 4, number);
    else wide(BigInt(number));
  }
  /** @param {number} count @param {number} fixed @param {number} most @param {[number, number, number][]} forms */
  function header(count, fixed, most, forms) {
    if (count <= most) return u8(fixed | count);
    for (const [tag, size, limit] of forms) if (count <= limit) return sized(tag, size, count);
    throw new MessageError(`too long for MessagePack: ${count}`);
  }
  /** @param {unknown} item @param {number} depth */
  function write(item, depth) {
    if (depth > DEEPEST) throw new MessageError('nested too deeply');
    if (item === null || item === undefined) u8(0xc0);
    else if (typeof item === 'boolean') u8(item ? 0xc3 : 0xc2);
    else if (typeof item === 'bigint') {
      if (item < -(2n ** 63n) || item >= 2n ** 64n) throw new MessageError(`does not fit 64 bits: ${item}`);
      if (item >= 0n && item <= 0xffffffffn) integer(Number(item));
      else wide(item);
    } else if (typeof item === 'number') {
      if (Number.isSafeInteger(item) && !Object.is(item, -0)) integer(item);
      else {
        reserve(9);
        bytes[length++] = 0xcb;
        view.setFloat64(length, item);
        length += 8;
      }
    } else if (typeof item === 'string') {
      const text = TO_UTF8.encode(item);
      header(text.length, 0xa0, 31, [[0xd9, 1, 0xff], [0xda, 2, 0xffff], [0xdb, 4, 0xffffffff]]);
      raw(text);
    } else if (item instanceof ArrayBuffer || ArrayBuffer.isView(item)) {
      const block = item instanceof ArrayBuffer
        ? new Uint8Array(item) : new Uint8Array(item.buffer, item.byteOffset, item.byteLength);
      header(block.length, 0, -1, [[0xc4, 1, 0xff], [0xc5, 2, 0xffff], [0xc6, 4, 0xffffffff]]);
      raw(block);
    } else if (Array.isArray(item)) {
      header(item.length, 0x90, 15, [[0xdc, 2, 0xffff], [0xdd, 4, 0xffffffff]]);
      for (const entry of item) write(entry, depth + 1);
    } else if (typeof item === 'object') {
      const entries = Object.entries(item).filter((entry) => entry[1] !== undefined);
      header(entries.length, 0x80, 15, [[0xde, 2, 0xffff], [0xdf, 4, 0xffffffff]]);
      for (const [name, entry] of entries) {
        write(name, depth + 1);
        write(entry, depth + 1);
      }
    } else throw new MessageError(`cannot be sent: ${typeof item}`);
  }

  write(value, 0);
  return bytes.slice(0, length);
}

/**
 * Decode exactly one value.
 * @param {ArrayBuffer | Uint8Array} data
 * @returns {any}
 */
export function decode(data) {
  const bytes = data instanceof Uint8Array ? data : new Uint8Array(data);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let offset = 0;

  /** @param {number} size @returns {number} where the `size` bytes begin */
  function take(size) {
    const start = offset;
    if (size > bytes.length - start) throw new MessageError('the message is cut short');
    offset = start + size;
    return start;
  }
  /** @param {number} size */
  const text = (size) => {
    const start = take(size);
    return UTF8.decode(bytes.subarray(start, start + size));
  };
  /** @param {number} size */
  const bin = (size) => {
    const start = take(size);
    return bytes.slice(start, start + size).buffer;
  };
  /** @param {bigint} integer */
  const exact = (integer) => {
    const number = Number(integer);
    return Number.isSafeInteger(number) ? number : integer;
  };
  /** @param {number} count @param {number} depth */
  function array(count, depth) {
    const items = [];
    for (let index = 0; index < count; index++) items.push(read(depth + 1));
    return items;
  }
  /** @param {number} count @param {number} depth */
  function map(count, depth) {
    /** @type {Record<string, any>} */
    const items = {};
    for (let index = 0; index < count; index++) {
      const name = read(depth + 1);
      if (typeof name !== 'string' && typeof name !== 'number') throw new MessageError('a map key must be a string or a number');
      if (name === '__proto__') throw new MessageError('a map key must not be __proto__');
      items[name] = read(depth + 1);
    }
    return items;
  }
  /** @param {number} depth @returns {any} */
  function read(depth) {
    if (depth > DEEPEST) throw new MessageError('nested too deeply');
    const tag = view.getUint8(take(1));
    if (tag < 0x80) return tag;
    if (tag < 0x90) return map(tag & 15, depth);
    if (tag < 0xa0) return array(tag & 15, depth);
    if (tag < 0xc0) return text(tag & 31);
    if (tag >= 0xe0) return tag - 256;
    switch (tag) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: return bin(view.getUint8(take(1)));
      case 0xc5: return bin(view.getUint16(take(2)));
      case 0xc6: return bin(view.getUint32(take(4)));
      case 0xca: return view.getFloat32(take(4));
      case 0xcb: return view.getFloat64(take(8));
      case 0xcc: return view.getUint8(take(1));
      case 0xcd: return view.getUint16(take(2));
      case 0xce: return view.getUint32(take(4));
      case 0xcf: return exact(view.getBigUint64(take(8)));
      case 0xd0: return view.getInt8(take(1));
      case 0xd1: return view.getInt16(take(2));
      case 0xd2: return view.getInt32(take(4));
      case 0xd3: return exact(view.getBigInt64(take(8)));
      case 0xd9: return text(view.getUint8(take(1)));
      case 0xda: return text(view.getUint16(take(2)));
      case 0xdb: return text(view.getUint32(take(4)));
      case 0xdc: return array(view.getUint16(take(2)), depth);
      case 0xdd: return array(view.getUint32(take(4)), depth);
      case 0xde: return map(view.getUint16(take(2)), depth);
      case 0xdf: return map(view.getUint32(take(4)), depth);
      default: throw new MessageError(`unknown MessagePack tag 0x${tag.toString(16)}`);
    }
  }

  const value = read(0);
  if (offset !== bytes.length) throw new MessageError(`${bytes.length - offset} bytes after the message`);
  return value;
}

/** Socket.IO's protocol 5 packets as MessagePack maps, as python-socketio's `serializer="msgpack"` writes them. */
class Encoder {
  /** @param {unknown} packet */
  encode(packet) {
    return [encode(packet)];
  }
}

class Decoder {
  constructor() {
    /** @type {Map<string, Set<(packet: any) => void>>} */
    this.listeners = new Map();
  }

  /** @param {ArrayBuffer | Uint8Array} data one packet */
  add(data) {
    const packet = decode(data);
    if (!Number.isInteger(packet?.type) || packet.type < 0 || packet.type > 4) throw new MessageError('not a Socket.IO packet');
    for (const listener of this.listeners.get('decoded') ?? []) listener(packet);
  }

  /** @param {string} event @param {(packet: any) => void} listener */
  on(event, listener) {
    const known = this.listeners.get(event) ?? new Set();
    this.listeners.set(event, known.add(listener));
    return this;
  }

  /** @param {string} [event] @param {(packet: any) => void} [listener] */
  off(event, listener) {
    if (event === undefined) this.listeners.clear();
    else if (listener === undefined) this.listeners.delete(event);
    else this.listeners.get(event)?.delete(listener);
    return this;
  }

  destroy() {
    this.listeners.clear();
  }
}

/** Give this to `io(url, { parser })`. */
export const parser = { protocol: 5, Encoder, Decoder };
