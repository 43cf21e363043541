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
    const words = said.detail.split(' ');
    let line = '';
    let y = middle + size * 1.1;
    for (const word of words) {
      const longer = line ? `${line} ${word}` : word;
      if (brush.context.measureText(longer).width > room && line) {
        brush.text(line, centre, y, room, brush.colour('--soft'), 'center');
        y += size * 1.25;
        line = word;
      } else line = longer;
    }
    brush.text(line, centre, y, room, brush.colour('--soft'), 'center');
  },
  tip: () => [],
};
