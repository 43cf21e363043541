/**
 * What the page remembers for this reader in this browser: theme, folds, sizes, the open tab. Never anything of the lab.
 * A browser that refuses storage is served all the same: the values then last as long as the page.
 */

export class Preferences {
  /** @param {Pick<Storage, 'getItem' | 'setItem'> | null} storage */
  constructor(storage) {
    this.storage = storage;
    /** @type {Map<string, unknown>} */
    this.values = new Map();
  }

  /**
   * @template T
   * @param {string} name
   * @param {T} fallback also says what type is expected: a stored value of another type is ignored
   * @returns {T}
   */
  get(name, fallback) {
    if (!this.values.has(name)) this.values.set(name, this.read(name) ?? fallback);
    const value = this.values.get(name);
    return typeof value === typeof fallback ? /** @type {T} */ (value) : fallback;
  }

  /** @param {string} name @param {unknown} value */
  set(name, value) {
    this.values.set(name, value);
    try {
      this.storage?.setItem(`ringside.${name}`, JSON.stringify(value));
    } catch {
      this.storage = null;
    }
  }

  /** @param {string} name @returns {unknown} */
  read(name) {
    try {
      return JSON.parse(this.storage?.getItem(`ringside.${name}`) ?? 'null');
    } catch {
      return null;
    }
  }
}

/** The browser's storage, or null where it refuses. @returns {Storage | null} */
export function storage() {
  try {
    return window.localStorage;
  } catch {
    return null;
  }
}
