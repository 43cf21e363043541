/**
 * The host stacks as the page draws them: which bands a host has below its guests, from the least privileged that is not
 * a guest's down to the hardware, and how a guest's kernel runs. A new stack is a row here and its words in messages.js.
 * Stations are the names of the trace's levels (the schema's `levels`).
 */

/**
 * `guest`: how a guest runs, `deprivileged` (its kernel in U mode), in the hart's `virtual` modes, or `native`.
 * @typedef {{id: string, guest: 'deprivileged' | 'virtual' | 'native', bands: string[]}} Stack
 */

/** @type {Stack[]} */
export const STACKS = [
  { id: 'type1-trap-and-emulate', guest: 'deprivileged', bands: ['hypervisor', 'device_model', 'hardware'] },
  { id: 'type1-hardware-assist', guest: 'virtual', bands: ['hypervisor', 'device_model', 'hardware'] },
  { id: 'type1-paravirtual', guest: 'deprivileged', bands: ['hypervisor', 'device_model', 'hardware'] },
  { id: 'bare-metal', guest: 'native', bands: ['firmware', 'hardware'] },
];

/** @param {string} id @returns {Stack} a stack this page does not know is drawn as hardware only */
export function stackOf(id) {
  return STACKS.find((stack) => stack.id === id) ?? { id, guest: 'native', bands: ['hardware'] };
}
