/**
 * Which trap records a reader wants to see. Pure.
 * @typedef {import('../records.js').TrapRecord} TrapRecord
 * @typedef {object} Filter an empty set, null or '' does not restrict
 * @property {Set<number>} dispositions
 * @property {number | null} kind
 * @property {number | null} cause
 * @property {number | null} guest
 * @property {number | null} path
 * @property {string} text every word of it must occur in the row's text, whatever the case
 */

/** @returns {Filter} */
export const everything = () => ({ dispositions: new Set(), kind: null, cause: null, guest: null, path: null, text: '' });

/** @param {Filter} filter */
export const restricts = (filter) => filter.dispositions.size > 0 || filter.text.trim() !== ''
  || filter.kind !== null || filter.cause !== null || filter.guest !== null || filter.path !== null;

/**
 * @param {TrapRecord} record
 * @param {Filter} filter
 * @param {(record: TrapRecord) => string} rowText asked only when the filter has text
 */
export function matches(record, filter, rowText) {
  if (filter.dispositions.size > 0 && !filter.dispositions.has(record.disposition)) return false;
  if (filter.kind !== null && record.kind !== filter.kind) return false;
  if (filter.cause !== null && record.cause !== filter.cause) return false;
  if (filter.guest !== null && record.guest !== filter.guest) return false;
  if (filter.path !== null && record.path !== filter.path) return false;
  const words = filter.text.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return true;
  const text = rowText(record).toLowerCase();
  return words.every((part) => text.includes(part));
}
