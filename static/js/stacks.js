/**
 * The host stacks and techniques as the page draws them: which bands a host has below its guests, from the least privileged
 * that is not a guest's down to the hardware, and how a guest's kernel runs. A new one is a row here and its words in
 * messages.js. Stations are the names of the trace's levels (the schema's `levels`).
 */

/** @typedef {{id: string, bands: string[]}} Stack */
/** `guest`: how a guest runs, `deprivileged` (its kernel in U mode), in the hart's `virtual` modes, or `native`. */
/** @typedef {{id: string, guest: 'deprivileged' | 'virtual'}} Technique */
/** @typedef {{stack: string, technique: string | null}} Configured what a host's row says of it */
/** @typedef {{t: (key: string, params?: Record<string, string>) => string}} Speaker the app */

/** @type {Stack[]} */
export const STACKS = [
  { id: 'kvm', bands: ['hypervisor', 'device_model', 'hardware'] },
  { id: 'bare-metal', bands: ['firmware', 'hardware'] },
];

/** @type {Technique[]} */
export const TECHNIQUES = [
  { id: 'trap-and-emulate', guest: 'deprivileged' },
  { id: 'hardware-assist', guest: 'virtual' },
];

/**
 * How a host's guests run and its bands. @param {Configured | undefined} host
 * @returns {{guest: 'deprivileged' | 'virtual' | 'native', bands: string[]}} a stack this page does not know is drawn as
 *   hardware only
 */
export function layersOf(host) {
  return {
    guest: TECHNIQUES.find((technique) => technique.id === host?.technique)?.guest ?? 'native',
    bands: STACKS.find((stack) => stack.id === host?.stack)?.bands ?? ['hardware'],
  };
}

/** What runs a host's guests, in words. @param {Speaker} app @param {Configured} host */
export function stackText(app, host) {
  const stack = app.t(`stack.${host.stack}`);
  return host.technique ? app.t('stack.with-technique', { stack, technique: app.t(`technique.${host.technique}`) }) : stack;
}

/** How a host virtualizes, in words. @param {Speaker} app @param {string | null} technique */
export function techniqueText(app, technique) {
  return app.t(technique ? `technique.${technique}` : 'stack.bare-metal');
}
