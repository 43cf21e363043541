/**
 * The Timeline panel: every stored trap as a mark in its guest's lane, the playhead, and going to any moment of the history.
 * A disposition has a colour and a place in the lane's height, so that colour never speaks alone. Positions are steps (see
 * scale.js); the state at a position is exact, the server derives it by replay.
 * @typedef {import('../app.js').App} App
 * @typedef {import('./scale.js').Mark} Mark
 */
import { h, setAttribute, setText } from '../dom.js';
import { button, onceAFrame, stateLine, themeColour, Undoing } from './parts.js';
import { poller } from './poller.js';
import { following, inside, markAt, neighbour, panned, ticks, toPixel, toPosition, zoomed } from './scale.js';

const EVERY_MS = 2000;
const AXIS_PX = 22;
const NAMES_PX = 92;
const LANE_MIN_PX = 18;
const LANE_MAX_PX = 72;
const REACH_PX = 6;
const ZOOM = 0.6;
const PAN = 0.25;
const FIRST_VIEW = 100_000;

/** @param {HTMLElement} root @param {App} app @returns {import('../app.js').Panel} */
export function mountTimeline(root, app) {
  const undo = new Undoing();
  /** @type {Mark[]} */
  let marks = [];
  let history = { ...app.store.history };
  let view = following({ begin: history.end - FIRST_VIEW, end: history.end }, app.store.position, history);
  let shown = true;
  let asked = '';
  /** @type {number | null} where the pointer is, px from the lanes' left edge */
  let pointer = null;
  let pointerLane = -1;
  let scrubbing = false;
  /** @type {number | null} */
  let going = null;
  let answered = false;
  /** Where the lab was when the marks were asked for. While it runs, the playhead keeps to that: the traps behind it are known. */
  let known = app.store.position;
  const flagsName = `timeline.flags.${app.lab}`;

  /** @returns {number[]} */
  const flags = () => app.preferences.get(flagsName, /** @type {number[]} */ ([]));

  const canvas = h('canvas', { 'aria-hidden': 'true' });
  const tooltip = h('div.timeline-tooltip', { hidden: true, 'aria-hidden': 'true' });
  const slider = h('div.timeline-lanes', { role: 'slider', tabindex: '0', 'aria-label': app.t('timeline.label'), 'aria-orientation': 'horizontal' }, canvas, tooltip);
  const scroller = h('div.timeline-scroll', {}, slider);
  const where = h('span.timeline-where');
  const exporting = h('a.button', { title: app.t('timeline.export.hint'), download: true }, app.t('timeline.export'));
  const state = stateLine(app);
  /** Key -> [words, what it does]. @type {Record<string, [key: string, text: string, run: () => void]>} */
  const moves = {
    w: ['timeline.zoomin', '+', () => look(zoomed(view, ZOOM, centre(), history))],
    s: ['timeline.zoomout', '−', () => look(zoomed(view, 1 / ZOOM, centre(), history))],
    a: ['timeline.earlier', '←', () => look(panned(view, -PAN, history))],
    d: ['timeline.later', '→', () => look(panned(view, PAN, history))],
    ',': ['timeline.previous', '⇤', () => toNeighbour(-1)],
    '.': ['timeline.next', '⇥', () => toNeighbour(1)],
    f: ['timeline.focus', '◎', () => look(focused())],
    m: ['timeline.mark', '⚑', () => toggleFlag()],
  };
  const bar = h('div.panel-bar', {},
    ...Object.values(moves).map(([key, text, run]) => button(text, run, { class: 'square', title: app.t(key), 'aria-label': app.t(key) })),
    button(app.t('timeline.all'), () => look(inside({ begin: history.begin, end: Infinity }, history))),
    button(app.t('timeline.back'), () => void app.attempt({ type: 'lab.step_back', unit: 'trap' })),
    h('span.panel-gap'), where, exporting);
  root.append(h('div.dock-panel.timeline', {}, bar, state.element, scroller));

  /** @param {import('./scale.js').Span} next */
  function look(next) {
    view = next;
    frame.request();
  }

  const focused = () => {
    const width = Math.min(view.end - view.begin, 2000);
    return inside({ begin: app.store.position - width / 2, end: app.store.position + width / 2 }, history);
  };
  const visible = (/** @type {number} */ position) => position >= view.begin && position <= view.end;
  const centre = () => (pointer !== null ? toPosition(view, width(), pointer) : visible(app.store.position) ? app.store.position : (view.begin + view.end) / 2);
  const width = () => Math.max(1, slider.clientWidth - NAMES_PX);

  /** @param {number} position */
  async function seek(position) {
    const target = Math.round(Math.min(Math.max(position, history.begin), history.end));
    going = target;
    frame.request();
    await app.attempt({ type: 'lab.seek', position: target });
    if (going === target) going = null;
    frame.request();
  }

  /** @param {1 | -1} direction */
  async function toNeighbour(direction) {
    const guest = app.selection?.kind === 'guest' ? app.selection.id : null;
    const mark = neighbour(marks, going ?? app.store.position, direction, guest);
    if (mark) await seek(mark[0]);
    else if (direction > 0) await app.attempt({ type: 'lab.step', unit: 'trap' });
    else if (answered) app.announce(app.t('timeline.nothing'));
    else await app.attempt({ type: 'lab.step_back', unit: 'trap', guest });
  }

  function toggleFlag() {
    const at = app.store.position;
    const known = flags().includes(at);
    app.preferences.set(flagsName, known ? flags().filter((flag) => flag !== at) : [...flags(), at].sort((a, b) => a - b));
    app.announce(app.t(known ? 'timeline.unmarked' : 'timeline.marked', { position: at }));
    frame.request();
  }

  /** The position under a pixel: a flag or a mark near it wins. @param {number} pixel */
  function snapped(pixel) {
    const flag = flags().find((position) => Math.abs(toPixel(view, width(), position) - pixel) <= REACH_PX);
    const guest = app.store.document?.guests[pointerLane]?.id ?? null;
    return flag ?? markAt(marks, view, width(), pixel, REACH_PX, guest)?.[0] ?? toPosition(view, width(), pixel);
  }

  const poll = poller(EVERY_MS, async () => {
    if (!shown) return;
    try {
      const result = await app.query({ type: 'timeline' });
      marks = result.marks;
      answered = true;
      const isFollowed = visible(known);
      known = result.position;
      history = { begin: result.begin, end: Math.max(result.end, result.position) };
      const follows = app.store.running || (isFollowed && !visible(known));
      view = follows ? following(view, known, history) : inside(view, history);
      state.show(marks.length === 0 && history.end === history.begin ? app.t('timeline.empty') : null);
    } catch (error) {
      state.show(app.t('panel.failed', { reason: app.problemText(error) }), () => poll.request(false));
    }
    frame.request();
  });

  /** @param {Mark} mark */
  const markText = (mark) => app.t('timeline.at', {
    kind: app.t(`kind.${app.store.schema.kinds[mark[3]]}`), guest: app.store.guest(mark[2])?.name ?? `#${mark[2]}`, position: mark[0],
  });

  function draw() {
    const guests = app.store.document?.guests ?? [];
    const height = scroller.clientHeight;
    const lane = Math.max(LANE_MIN_PX, Math.min(LANE_MAX_PX, (height - AXIS_PX) / Math.max(1, guests.length)));
    const total = Math.max(height, AXIS_PX + lane * guests.length);
    const full = slider.clientWidth;
    if (full < NAMES_PX + 20 || total < AXIS_PX) return;
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(full * ratio) || canvas.height !== Math.round(total * ratio)) {
      canvas.width = Math.round(full * ratio);
      canvas.height = Math.round(total * ratio);
      canvas.style.width = `${full}px`;
      canvas.style.height = `${total}px`;
    }
    const pen = canvas.getContext('2d');
    if (!pen) return;
    const colour = (/** @type {string} */ name) => themeColour(slider, name);
    const [ink, dim, line, panel] = [colour('--ink'), colour('--dim'), colour('--line'), colour('--panel')];
    const font = colour('--font-text');
    const across = width();
    const x = (/** @type {number} */ position) => NAMES_PX + toPixel(view, across, position);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, full, total);
    pen.font = `11px ${font}`;
    pen.textBaseline = 'middle';

    pen.textAlign = 'center';
    for (const at of ticks(view, Math.max(2, Math.floor(across / 120)))) {
      pen.fillStyle = line;
      pen.fillRect(Math.round(x(at)), AXIS_PX - 5, 1, total);
      pen.fillStyle = dim;
      const half = pen.measureText(app.n(at)).width / 2;
      pen.fillText(app.n(at), visible(at) ? Math.max(x(at), NAMES_PX + half) : x(at), AXIS_PX / 2 - 2);
    }
    const dispositions = app.store.schema.dispositions.map((name) => colour(`--disposition-${name}`));
    /** @type {Map<number, number>} */
    const lanes = new Map(guests.map((guest, index) => [guest.id, AXIS_PX + index * lane]));
    pen.textAlign = 'left';
    for (const guest of guests) {
      const y = lanes.get(guest.id) ?? 0;
      pen.fillStyle = line;
      pen.fillRect(0, Math.round(y), full, 1);
    }
    const part = (lane - 6) / dispositions.length;
    for (const [position, , guest, , disposition] of marks) {
      const y = lanes.get(guest);
      if (y === undefined || !visible(position)) continue;
      pen.globalAlpha = position > app.store.position ? 0.4 : 1;
      pen.fillStyle = dispositions[disposition];
      pen.fillRect(Math.round(x(position)) - 1, y + 3 + disposition * part, 2, Math.max(3, part + 1));
    }
    pen.globalAlpha = 1;
    pen.fillStyle = panel;
    pen.fillRect(0, 0, NAMES_PX - 1, total);
    guests.forEach((guest) => {
      const y = lanes.get(guest.id) ?? 0;
      pen.fillStyle = app.guest === guest.id ? ink : dim;
      pen.fillText(guest.name, 10, y + lane / 2, NAMES_PX - 16);
      pen.fillStyle = line;
      pen.fillRect(0, Math.round(y), NAMES_PX, 1);
    });
    pen.fillStyle = dim;
    pen.fillText(app.t('timeline.steps'), 10, AXIS_PX / 2 - 2);

    pen.fillStyle = colour('--disposition-forwarded');
    for (const flag of flags()) {
      if (!visible(flag)) continue;
      const at = Math.round(x(flag));
      pen.fillRect(at, 0, 1, total);
      pen.beginPath();
      pen.moveTo(at, 1);
      pen.lineTo(at + 8, 4);
      pen.lineTo(at, 8);
      pen.fill();
    }
    const head = app.store.running ? known : app.store.position;
    if (visible(head)) {
      const at = Math.round(x(head));
      pen.fillStyle = colour('--accent');
      pen.fillRect(at - 1, AXIS_PX - 8, 2, total);
      pen.beginPath();
      pen.moveTo(at - 5, AXIS_PX - 9);
      pen.lineTo(at + 5, AXIS_PX - 9);
      pen.lineTo(at, AXIS_PX - 2);
      pen.fill();
    }
    const ghost = going !== null ? x(going) : pointer !== null ? NAMES_PX + pointer : null;
    if (ghost !== null && ghost >= NAMES_PX) {
      pen.fillStyle = dim;
      for (let y = AXIS_PX; y < total; y += 6) pen.fillRect(Math.round(ghost), y, 1, 3);
    }
    showTooltip(across, lane);
  }

  /** @param {number} across @param {number} lane */
  function showTooltip(across, lane) {
    const guest = app.store.document?.guests[pointerLane]?.id;
    tooltip.hidden = pointer === null || pointer < 0;
    if (tooltip.hidden || pointer === null) return;
    const mark = guest === undefined ? null : markAt(marks, view, across, pointer, REACH_PX, guest);
    setText(tooltip, mark ? markText(mark) : `${app.t('timeline.steps')} ${app.n(Math.max(history.begin, toPosition(view, across, pointer)))}`);
    const left = Math.min(NAMES_PX + pointer + 12, slider.clientWidth - tooltip.offsetWidth - 8);
    tooltip.style.transform = `translate(${left}px, ${Math.max(AXIS_PX, AXIS_PX + pointerLane * lane)}px)`;
  }

  function update() {
    if (!app.store.reader) {
      state.show(app.t('panel.loading'));
      return;
    }
    const { position, time } = app.store;
    history.end = Math.max(history.end, app.store.history.end);
    if (app.store.running && answered) view = following(view, known, history);
    setText(where, going === null
      ? app.t('timeline.position', { position, end: history.end, time: app.i18n.duration(time) })
      : app.t('timeline.seeking', { position: going }));
    const stretch = `from=${Math.floor(Math.max(history.begin, view.begin))}&to=${Math.ceil(Math.min(history.end, view.end))}`;
    setAttribute(exporting, 'href', `/labs/${encodeURIComponent(app.lab)}/trace?format=chrome&${stretch}`);
    setAttribute(slider, 'aria-valuemin', String(history.begin));
    setAttribute(slider, 'aria-valuemax', String(history.end));
    setAttribute(slider, 'aria-valuenow', String(position));
    setAttribute(slider, 'aria-valuetext', app.t('timeline.now', { position }));
    const question = `${position} ${app.store.running} ${app.store.document?.guests.length}`;
    if (question !== asked) {
      asked = question;
      poll.request(app.store.running);
    }
    draw();
  }

  const frame = onceAFrame(update);

  slider.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = { ArrowLeft: ',', ArrowRight: '.' }[event.key] ?? event.key.toLowerCase();
    if (key === 'home') void seek(history.begin);
    else if (key === 'end') void seek(history.end);
    else if (Object.hasOwn(moves, key)) moves[key][2]();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  /** @param {PointerEvent} event */
  function track(event) {
    const box = slider.getBoundingClientRect();
    pointer = event.clientX - box.left - NAMES_PX;
    const guests = app.store.document?.guests.length ?? 0;
    const lane = Math.max(LANE_MIN_PX, Math.min(LANE_MAX_PX, (scroller.clientHeight - AXIS_PX) / Math.max(1, guests)));
    pointerLane = Math.floor((event.clientY - box.top - AXIS_PX) / lane);
    frame.request();
  }
  slider.addEventListener('pointermove', track);
  slider.addEventListener('pointerleave', () => {
    if (scrubbing) return;
    pointer = null;
    frame.request();
  });
  slider.addEventListener('pointerdown', (event) => {
    track(event);
    if (event.button !== 0) return;
    if (pointer !== null && pointer < 0) {
      const guest = app.store.document?.guests[pointerLane];
      if (guest) app.select({ kind: 'guest', id: guest.id });
      return;
    }
    scrubbing = true;
    slider.setPointerCapture(event.pointerId);
  });
  slider.addEventListener('pointerup', (event) => {
    if (!scrubbing) return;
    scrubbing = false;
    track(event);
    if (pointer !== null) void seek(snapped(pointer));
  });
  slider.addEventListener('pointercancel', () => {
    scrubbing = false;
    pointer = null;
    frame.request();
  });
  slider.addEventListener('wheel', (event) => {
    event.preventDefault();
    const around = toPosition(view, width(), event.clientX - slider.getBoundingClientRect().left - NAMES_PX);
    const sideways = event.shiftKey ? event.deltaY : event.deltaX;
    if (Math.abs(sideways) > Math.abs(event.shiftKey ? 0 : event.deltaY)) look(panned(view, sideways / 800, history));
    else look(zoomed(view, Math.exp(event.deltaY / 400), around, history));
  }, { passive: false });
  const sizes = new ResizeObserver(() => frame.request());
  sizes.observe(scroller);
  undo.add(() => sizes.disconnect(), () => poll.stop(), () => frame.cancel(), app.store.on('keyframe', () => {
    asked = '';
    history = { ...app.store.history };
    view = inside(view, history);
  }), app.on('theme', () => frame.request()));
  return {
    update,
    show: () => {
      shown = true;
      asked = '';
    },
    hide: () => {
      shown = false;
    },
    destroy: () => undo.run(),
  };
}
