/** Room for a guest: on an empty host, and on the host over which one is being dragged. Says whether it fits before the drop. */

/** @type {import('./index.js').Shape} */
export const slot = {
  kind: 'slot',
  ground(brush, box, { verdict }) {
    if (!verdict(box.host)) brush.rectangle(null, brush.colour('--line-strong'), { radius: 7, dashed: true });
  },
  live(brush, box, { verdict }) {
    const said = verdict(box.host);
    const centre = brush.x + brush.w / 2;
    const middle = brush.y + brush.h / 2;
    const room = brush.w - 16;
    if (!said) {
      brush.type('text', 12);
      brush.text(brush.app.t('slot.empty'), centre, middle, room, brush.colour('--dim'), 'center');
      return;
    }
    const colour = brush.colour(said.fits === false ? '--state-failed' : '--accent');
    brush.context.globalAlpha = 0.1;
    brush.rectangle(colour, null, { radius: 7 });
    brush.context.globalAlpha = 1;
    brush.rectangle(null, colour, { radius: 7, width: 1.5, dashed: true });
    const size = brush.type('text', 12, 600);
    brush.text(said.title, centre, middle - size * 0.4, room, colour, 'center');
    brush.type('text', 11);
    brush.wrapped(said.detail, centre, middle + size * 1.1, room, size * 1.25, 4, brush.colour('--soft'), 'center');
  },
  tip: () => [],
};
