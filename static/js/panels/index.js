/** The dock's panels, in the order of their tabs, and the assembly editor. */
import { mountConsole } from './console.js';
import { mountCosts } from './costs.js';
import { mountCpu } from './cpu.js';
import { mountMemory } from './memory.js';
import { mountTimeline } from './timeline.js';
import { mountTraps } from './traps.js';

export { openEditor } from './editor.js';

/** @type {import('../app.js').PanelDefinition[]} */
export const PANELS = [
  { id: 'traps', titleKey: 'traps.title', mount: mountTraps },
  { id: 'console', titleKey: 'console.title', mount: mountConsole },
  { id: 'timeline', titleKey: 'timeline.title', mount: mountTimeline },
  { id: 'cpu', titleKey: 'cpu.title', mount: mountCpu },
  { id: 'memory', titleKey: 'memory.title', mount: mountMemory },
  { id: 'costs', titleKey: 'costs.title', mount: mountCosts },
];
