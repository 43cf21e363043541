/** The dock's panels, in the order of their tabs, and the assembly editor. */
import { mountConsole } from './console.js';
import { mountTraps } from './traps.js';

/** @type {import('../app.js').PanelDefinition[]} */
export const PANELS = [
  { id: 'traps', titleKey: 'traps.title', mount: mountTraps },
  { id: 'console', titleKey: 'console.title', mount: mountConsole },
];
