/** A host's harts and RAM at the host level, where the stack below the guests is folded into one box. */
import { hardware } from './band.js';

/** @type {import('./index.js').Shape} */
export const resources = {
  kind: 'resources',
  ground(brush, box) {
    brush.rectangle(brush.colour('--band-hardware'), brush.colour('--line-strong'), { radius: 5 });
    const stack = brush.app.store.host(box.host)?.stack ?? '';
    const size = brush.type('text', 11.5, 600);
    const pad = 10 * Math.max(brush.camera.scale, 0.6);
    brush.text(brush.app.t(`stack.${stack}.short`), brush.x + pad, brush.y + pad * 0.8 + size, brush.w - 2 * pad, brush.colour('--band-hardware-ink'));
  },
  live(brush, box) {
    hardware(brush, box);
  },
  tip: (app, box) => [app.t(`stack.${app.store.host(box.host)?.stack ?? ''}`)],
};
