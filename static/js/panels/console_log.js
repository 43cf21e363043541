/**
 * The latest console output of every guest, and who wants to see more of it.
 * Invariant: at most `SCROLLBACK_BYTES` per guest are kept (the server's keyframe holds as much), the oldest chunks go first. Pure.
 */
export const SCROLLBACK_BYTES = 64 << 10;

/** The longest input the lab takes in one command, bytes. */
export const INPUT_BYTES = 4096;

export class ConsoleLog {
  constructor() {
    /** @type {Map<number, {chunks: Uint8Array[], size: number}>} */
    this.logs = new Map();
    /** @type {Set<{output: (guest: number, bytes: Uint8Array) => void, cleared: () => void}>} */
    this.readers = new Set();
  }

  /** @param {number} guest @param {Uint8Array} bytes */
  append(guest, bytes) {
    const log = this.logs.get(guest) ?? { chunks: [], size: 0 };
    this.logs.set(guest, log);
    log.chunks.push(bytes);
    log.size += bytes.length;
    while (log.chunks.length > 1 && log.size - log.chunks[0].length >= SCROLLBACK_BYTES) {
      log.size -= log.chunks[0].length;
      log.chunks.shift();
    }
    for (const reader of this.readers) reader.output(guest, bytes);
  }

  /** @param {number} guest @returns {Uint8Array[]} oldest first */
  chunks(guest) {
    return this.logs.get(guest)?.chunks ?? [];
  }

  /** Forget everything: the lab has jumped, and a keyframe's scrollback follows. */
  clear() {
    this.logs.clear();
    for (const reader of this.readers) reader.cleared();
  }

  /** @param {Set<number>} guests those that still exist */
  keep(guests) {
    for (const guest of this.logs.keys()) if (!guests.has(guest)) this.logs.delete(guest);
  }
}

/**
 * Cut input into commands. A character of several bytes may be cut: the guest reads bytes.
 * @param {Uint8Array[]} pieces
 * @returns {Uint8Array[]} none empty, none longer than INPUT_BYTES, together the same bytes
 */
export function inputCommands(pieces) {
  const size = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const all = new Uint8Array(size);
  let offset = 0;
  for (const piece of pieces) {
    all.set(piece, offset);
    offset += piece.length;
  }
  const commands = [];
  for (let start = 0; start < size; start += INPUT_BYTES) commands.push(all.slice(start, start + INPUT_BYTES));
  return commands;
}
