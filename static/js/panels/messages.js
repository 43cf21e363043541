/** The sentences of the dock's panels, in the shape of ../messages.js. */

/** @type {Record<string, readonly [en: string, ko: string]>} */
export const PANEL_MESSAGES = {};
