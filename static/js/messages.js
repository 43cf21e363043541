/**
 * Every sentence of the page's frame: key -> [English, Korean]. The panels' sentences are in panels/messages.js, in the
 * same shape; i18n.js says what a message may hold. A test checks that every key used exists and that none is unused.
 */

/** @type {Record<string, readonly [en: string, ko: string]>} */
export const MESSAGES = {
  'dock.label': ['Panels', '패널'],
};
