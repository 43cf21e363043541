/**
 * The host stacks as the page draws them: which bands a host has below its guests, from the least privileged that is not
 * a guest's down to the hardware, and how a guest's kernel runs. A new stack is a row here and its words in messages.js.
 * Stations are the names of the trace's levels (the schema's `levels`).
 */

/** @typedef {{id: string, deprivileged: boolean, bands: string[]}} Stack */

/** @type {Stack[]} */
export const STACKS = [
  { id: 'type1-trap-and-emulate', deprivileged: true, bands: ['hypervisor', 'device_model', 'hardware'] },
  { id: 'bare-metal', deprivileged: false, bands: ['firmware', 'hardware'] },
];

/** @param {string} id @returns {Stack} a stack this page does not know is drawn as hardware only */
export function stackOf(id) {
  return STACKS.find((stack) => stack.id === id) ?? { id, deprivileged: false, bands: ['hardware'] };
}
