/**
 * Every sentence of the page, in the reader's language, from one table (messages.js, panels/messages.js, compare/messages.js).
 *
 * A message may hold `{name}` (a parameter; numbers in the locale's format), `{n|row|rows}` (plural by parameter n) and
 * `{name:을}` (a parameter and the Korean particle that its last sound calls for). Pure: where the language comes from
 * and who re-renders on a change is the caller's business.
 */
import { COMPARE_MESSAGES } from './compare/messages.js';
import { ERROR_MESSAGES } from './error_messages.js';
import { MESSAGES } from './messages.js';
import { PANEL_MESSAGES } from './panels/messages.js';

/** @typedef {'en' | 'ko'} Language */
/** @typedef {Record<string, string | number | bigint>} Params */

export const LANGUAGES = /** @type {const} */ (['en', 'ko']);

/** @type {Record<string, readonly [en: string, ko: string]>} */
export const CATALOGUE = {};
for (const table of [MESSAGES, ERROR_MESSAGES, PANEL_MESSAGES, COMPARE_MESSAGES]) {
  for (const [key, message] of Object.entries(table)) {
    if (Object.hasOwn(CATALOGUE, key)) throw new Error(`two messages are called ${key}`);
    CATALOGUE[key] = message;
  }
}

/** After a consonant / after a vowel, by the particle written in the message. @type {Record<string, [string, string]>} */
export const PARTICLES = {
  은: ['은', '는'], 이: ['이', '가'], 을: ['을', '를'], 과: ['과', '와'], 으로: ['으로', '로'], 이라는: ['이라는', '라는'],
};
/** Of the 28 final sounds of a syllable of Hangul. */
const FINAL_L = 8;

/**
 * Does the particle after this word take its form for a consonant, when the word is read aloud in Korean? After an l, 으로 does not.
 * Latin letters are taken for a word (server: 서버), one alone for its name (R: 알).
 * @param {string} word @param {string} particle
 */
function afterConsonant(word, particle) {
  const text = word.trim();
  const code = (text.at(-1) ?? '').charCodeAt(0) - 0xac00;
  const hangul = code >= 0 && code < 11172;
  const sounds = hangul ? code % 28 !== 0 : /[0136-8lmn]$|ng$|\b[lmnr]$/i.test(text);
  const ends = hangul ? code % 28 === FINAL_L : /[178l]$|\br$/i.test(text);
  return sounds && !(particle === '으로' && ends);
}

export class I18n {
  /** @param {Language} language */
  constructor(language) {
    this.language = language;
    this.column = 0;
    this.integers = new Intl.NumberFormat(language);
    this.decimals = this.integers;
    this.plurals = new Intl.PluralRules(language);
    this.setLanguage(language);
  }

  /** @param {Language} language */
  setLanguage(language) {
    this.language = language;
    this.column = LANGUAGES.indexOf(language);
    this.integers = new Intl.NumberFormat(language, { maximumFractionDigits: 0 });
    this.decimals = new Intl.NumberFormat(language, { maximumFractionDigits: 1, minimumFractionDigits: 1 });
    this.plurals = new Intl.PluralRules(language);
  }

  /** @param {string} key @returns {boolean} */
  has(key) {
    return Object.hasOwn(CATALOGUE, key);
  }

  /**
   * @param {string} key
   * @param {Params} [params]
   * @returns {string} the key itself when there is no such message, so that a hole is seen
   */
  t(key, params = {}) {
    const message = this.has(key) ? CATALOGUE[key][this.column] : key;
    return message.replace(/\{(\w+)(?:\|([^|}]*)\|([^}]*)|:([^}]+))?\}/g, (/** @type {string[]} */ ...[whole, name, one, other, particle]) => {
      const value = params[name];
      if (value === undefined) return whole;
      if (one !== undefined) return this.plurals.select(Number(value)) === 'one' ? one : other;
      const text = typeof value === 'string' ? value : this.integers.format(value);
      const pair = PARTICLES[particle];
      return pair ? text + pair[afterConsonant(text, particle) ? 0 : 1] : text;
    });
  }

  /** A whole number with the locale's separators. @param {number | bigint} value */
  n(value) {
    return this.integers.format(value);
  }

  /**
   * A rate or count with three significant figures at most: 950, 12.3 k, 4.1 M.
   * @param {number} value
   */
  compact(value) {
    if (value < 1000) return value > 0 && value < 10 ? this.decimals.format(value) : this.integers.format(value);
    const [divisor, unit] = value < 1e6 ? [1e3, 'k'] : value < 1e9 ? [1e6, 'M'] : [1e9, 'G'];
    const scaled = value / divisor;
    return `${(scaled < 100 ? this.decimals : this.integers).format(scaled)} ${unit}`;
  }

  /** Virtual time with a unit. @param {number} ns */
  duration(ns) {
    if (ns < 1e3) return `${this.integers.format(ns)} ns`;
    if (ns < 1e6) return `${this.decimals.format(ns / 1e3)} µs`;
    if (ns < 1e9) return `${this.decimals.format(ns / 1e6)} ms`;
    return `${this.decimals.format(ns / 1e9)} s`;
  }
}
