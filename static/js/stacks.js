/**
 * The host stacks and techniques as the page draws them: which bands a host has below its guests, and how a guest's kernel
 * runs. A new one is a row here and its words in messages.js; what goes with what comes from the engine (the schema's `stacks`
 * and `switches`). Stations are the names of the trace's levels (the schema's `levels`).
 */

/** `bands`: from the guests down to the hardware. @typedef {{id: string, bands: string[]}} Stack */
/**
 * `guest`: how a guest runs, `deprivileged` (its kernel in U mode without knowing it), `translated` (so is its
 * translation), `paravirtual` (and it knows), in the hart's `virtual` modes, or `native`.
 */
/** @typedef {{id: string, guest: 'deprivileged' | 'translated' | 'paravirtual' | 'virtual'}} Technique */
/** @typedef {{stack: string, technique: string | null, switches?: string[]}} Configured what a host's row says of it */
/** @typedef {{t: (key: string, params?: Record<string, string | number>) => string}} Speaker the app */

/** @type {Stack[]} */
export const STACKS = [
  { id: 'xen', bands: ['device_model', 'driver_domain', 'hypervisor', 'hardware'] },
  { id: 'kvm', bands: ['hypervisor', 'device_model', 'hardware'] },
  { id: 'vmware', bands: ['hypervisor', 'device_model', 'host_kernel', 'hardware'] },
  { id: 'parallels', bands: ['vmm', 'host_kernel', 'hardware'] },
  { id: 'cloud', bands: ['hypervisor', 'hardware'] },
  { id: 'bare-metal', bands: ['firmware', 'hardware'] },
];

/** @type {Technique[]} */
export const TECHNIQUES = [
  { id: 'trap-and-emulate', guest: 'deprivileged' },
  { id: 'binary-translation', guest: 'translated' },
  { id: 'hardware-assist', guest: 'virtual' },
  { id: 'paravirtual', guest: 'paravirtual' },
];

/**
 * How a host's guests run and its bands. @param {Configured | undefined} host
 * @returns {{guest: 'deprivileged' | 'translated' | 'paravirtual' | 'virtual' | 'native', bands: string[]}} a stack this page does not know is drawn as
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
  const text = host.technique ? app.t('stack.with-technique', { stack, technique: app.t(`technique.${host.technique}`) }) : stack;
  const n = host.switches?.length ?? 0;
  return n > 0 ? app.t('stack.with-switches', { text, n }) : text;
}

/** How a host virtualizes, in words. @param {Speaker} app @param {string | null} technique */
export function techniqueText(app, technique) {
  return app.t(technique ? `technique.${technique}` : 'stack.bare-metal');
}

/** The key of a band's title on a host: its stack's own word for the station, or the usual one. @param {string} stack @param {string} station */
export function bandKey(stack, station) {
  return OWN_BANDS.has(`${stack}.${station}`) ? `band.${stack}.${station}` : `band.${station}`;
}

/** Stations that have a name of their own on a stack. */
export const OWN_BANDS = new Set([
  'xen.hypervisor', 'xen.device_model', 'kvm.hypervisor', 'kvm.device_model', 'vmware.hypervisor', 'vmware.device_model',
  'parallels.host_kernel', 'cloud.hypervisor', 'cloud.hardware',
]);
