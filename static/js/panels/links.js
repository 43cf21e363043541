/**
 * Going from a value in one panel to the Memory panel: the address wanted is kept here until Memory shows it.
 * @typedef {import('../app.js').App} App
 * @typedef {{guest: number, address: bigint}} Wanted
 */
import { h } from '../dom.js';
import { word } from './format.js';

/** @type {WeakMap<App, Wanted>} */
const wanted = new WeakMap();

/** Show an address of a guest in the Memory panel. @param {App} app @param {number} guest @param {number | bigint} address */
export function openMemory(app, guest, address) {
  wanted.set(app, { guest, address: word(address) });
  app.select({ kind: 'guest', id: guest });
  app.openPanel('memory');
}

/** What was asked for since the last call. @param {App} app @returns {Wanted | null} */
export function takeWanted(app) {
  const want = wanted.get(app) ?? null;
  wanted.delete(app);
  return want;
}

/** A value that opens Memory at itself. @param {App} app @param {number} guest @param {number | bigint} value @param {string} text */
export const memoryLink = (app, guest, value, text) => h('button', {
  type: 'button', class: 'value-link', title: app.t('detail.memory'), onclick: () => openMemory(app, guest, value),
}, text);
