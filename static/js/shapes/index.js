/**
 * The registry of what can be drawn. To add a shape: write one file that exports a Shape, add it here, and let
 * render/layout.js make boxes of its kind.
 *
 * A shape draws itself in two layers: `ground` (what changes with the document, theme or camera) and `live` (figures that
 * change with every tick, selection, hover). Both get a brush that already stands on the box. `tip` is the tooltip.
 */
import { band } from './band.js';
import { guest } from './guest.js';
import { host } from './host.js';
import { resources } from './resources.js';
import { slot } from './slot.js';

/**
 * @typedef {import('../render/layout.js').Box} Box
 * @typedef {import('../render/brush.js').Brush} Brush
 * @typedef {import('../app.js').App} App
 * @typedef {{level: import('../render/layout.js').Level, selected: (box: Box) => boolean, hovered: (box: Box) => boolean,
 *            carried: (box: Box) => boolean, verdict: (host: number) => import('../tools/carry.js').Verdict | null,
 *            words: import('../render/words.js').Words}} Scenery
 * @typedef {object} Shape
 * @property {import('../render/layout.js').BoxKind} kind
 * @property {(brush: Brush, box: Box, scenery: Scenery) => void} ground
 * @property {(brush: Brush, box: Box, scenery: Scenery) => void} live
 * @property {(app: App, box: Box) => string[]} tip lines of text; none: no tooltip
 */

/** @type {Map<string, Shape>} */
export const SHAPES = new Map();
for (const shape of [host, guest, band, resources, slot]) {
  if (SHAPES.has(shape.kind)) throw new Error(`two shapes draw ${shape.kind}`);
  SHAPES.set(shape.kind, shape);
}
