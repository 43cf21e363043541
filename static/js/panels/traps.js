/**
 * The Traps panel: a live, filtered feed of trap records, a chart of their rates, and one of them opened.
 * Invariants: only the rows on the screen are in the DOM, at a fixed height; the DOM is touched at most once a frame; what the
 * reader looks at does not move unless they follow the tail. Older records and gaps are asked of the lab when they come into view.
 * @typedef {import('../app.js').App} App
 * @typedef {import('../records.js').TrapRecord} Trap
 * @typedef {import('./feed.js').Item} Item
 */
import { h, setAttribute, setText } from '../dom.js';
import { rateChart } from './chart.js';
import { at, causeName, describe, pathName, pathWords } from './describe.js';
import { trapDetail } from './detail.js';
import { button, choice, onceAFrame, pill, stateLine, Undoing } from './parts.js';
import { Feed, isGap, keyOf, visibleRows } from './feed.js';
import { everything, matches, restricts } from './filter.js';
import { sessionOf } from './session.js';

const ROW_PX = 26;
const FOLLOWING_CAPACITY = 5_000;
const READING_CAPACITY = 20_000;
const PAGE_RECORDS = 200;
const MOST_RECORDS = 1_000;
/** Older records are asked of so many guests at once, those whose records end soonest. */
const GUESTS_A_PAGE = 8;
/** From this width of the dock on, the chart is shown until the reader closes it; below, the words of a row need the room. */
const CHART_FROM_PX = 1600;
/** The bar's choices follow the lab at this interval. */
const BAR_MS = 500;
const COLUMNS = ['time', 'guest', 'kind', 'cause', 'path', 'at', 'what', 'executed', 'cycles'];
const HINTED = new Set(['executed', 'cycles']);

/** @param {HTMLElement} root @param {App} app @returns {import('../app.js').Panel} */
export function mountTraps(root, app) {
  const session = sessionOf(app);
  const { context } = session;
  const undo = new Undoing();
  const feed = new Feed(FOLLOWING_CAPACITY);
  let filter = everything();
  /** @type {Item[]} */
  let items = [];
  let itemsOf = '';
  let following = true;
  /** The pointer is down on a row: the rows wait, so that a click hits what was aimed at. */
  let holding = false;
  /** Where the rows were at the last scroll event: only a reader who goes up from there stops following. */
  let scrolledTo = 0;
  let unseen = 0;
  /** @type {number | null} key of the record that the keyboard is on */
  let current = null;
  let loading = false;
  let exhausted = false;
  let wasRunning = app.store.running;
  let quietLoads = 0;
  /** @type {import('./filter.js').Filter | null} the filter that the bar shows */
  let barOf = null;
  /** @type {import('../protocol.js').LabDocument | null} */
  let barDocument = null;
  let barAt = 0;
  let shown = true;
  const wide = root.clientWidth >= CHART_FROM_PX;
  let height = 0;

  // -- the bar -------------------------------------------------------------------------------------
  const pills = h('div.pills', { role: 'group', 'aria-label': app.t('traps.what') });
  const kind = choice(app.t('traps.kind'), (value) => refine({ kind: number(value) }), true);
  const cause = choice(app.t('traps.cause'), (value) => refine({ cause: number(value) }), true);
  const guest = choice(app.t('traps.guest'), (value) => refine({ guest: number(value) }), true);
  const path = choice(app.t('traps.path'), (value) => refine({ path: number(value) }), true);
  const text = h('input', {
    type: 'search', class: 'traps-text', placeholder: app.t('traps.filter'), 'aria-label': app.t('traps.filter'),
    oninput: () => refine({ text: text.value }),
  });
  const clear = button(app.t('traps.filter.clear'), () => {
    text.value = '';
    filter = everything();
    refine({});
  });
  const chartToggle = button(app.t('traps.chart'), () => {
    app.preferences.set('traps.chart', !chartWanted());
    frame.request();
  }, { class: 'traps-chart-toggle' });
  const exporting = h('a.button', { title: app.t('traps.export.hint'), download: true }, app.t('traps.export'));
  const bar = h('div.panel-bar', {}, pills, guest.element, kind.element, cause.element, path.element, text, clear,
    h('span.panel-gap', {}), chartToggle, exporting);

  /** @param {string} value */
  const number = (value) => (value === '' ? null : Number(value));
  const chartWanted = () => app.preferences.get('traps.chart', wide);

  /** @param {Partial<import('./filter.js').Filter>} change */
  function refine(change) {
    filter = { ...filter, ...change };
    quietLoads = 0;
    exhausted = false;
    frame.request();
  }

  // -- the grid ------------------------------------------------------------------------------------
  const head = h('div.traps-row.traps-head', { role: 'row' }, ...COLUMNS.map((column) => h('span', {
    class: `c-${column}`, role: 'columnheader', title: HINTED.has(column) ? app.t(`traps.${column}.hint`) : null,
  }, app.t(`traps.${column}`))));
  const spacer = h('div.traps-spacer', { role: 'presentation' });
  const grid = h('div.traps-grid', { role: 'grid', tabindex: '0', 'aria-label': app.t('traps.label') }, head, spacer);
  const state = stateLine(app);
  const fresh = button('', () => follow(), { class: 'primary traps-new' });
  const chart = rateChart(app);
  const detail = trapDetail(app, () => closeDetail());
  const feedElement = h('div.traps-feed', {}, grid, state.element, fresh);
  root.append(h('div.dock-panel.traps', {}, bar, h('div.traps-body', {}, feedElement, chart.element, detail.element)));

  /** @typedef {{element: HTMLElement, cells: HTMLElement[], badge: ReturnType<typeof pill>, what: HTMLElement, shown: string}} Row */
  /** @type {Row[]} */
  const pool = [];

  /** @returns {Row} */
  function makeRow() {
    const badge = pill('span');
    const what = h('span.what', {});
    const cells = COLUMNS.map((column) => (column === 'what'
      ? h('span.c-what', { role: 'gridcell' }, badge.element, what)
      : h('span', { class: `c-${column}`, role: 'gridcell' })));
    const element = h('div.traps-row', { role: 'row' }, ...cells);
    spacer.append(element);
    return { element, cells, badge, what, shown: '' };
  }

  /** @param {Row} row @param {number} index @param {string} epoch changes when texts may have changed */
  function fillRow(row, index, epoch) {
    const item = items[index];
    const gap = isGap(item);
    const selected = !gap && (keyOf(item) === current);
    const open = !gap && detail.trap !== null && keyOf(detail.trap) === keyOf(item);
    const mark = `${epoch} ${gap ? `gap ${item.gap} ${item.guest} ${item.before}` : keyOf(item)} ${selected} ${open} ${index}`;
    if (row.shown === mark) return;
    row.shown = mark;
    const { element, cells } = row;
    element.style.transform = `translateY(${index * ROW_PX}px)`;
    element.dataset.index = String(index);
    setAttribute(element, 'aria-rowindex', String(index + 2));
    element.classList.toggle('gap', gap);
    element.classList.toggle('current', selected);
    element.classList.toggle('open', open);
    setAttribute(element, 'aria-selected', open ? 'true' : 'false');
    if (gap) {
      element.id = `gap-${item.guest}-${item.before}`;
      cells.forEach((cell, column) => column !== 6 && setText(cell, ''));
      row.badge.element.hidden = true;
      setText(row.what, app.t('traps.gap', { count: item.gap, guest: context.guestName(item.guest) }));
      row.what.title = row.what.textContent ?? '';
      return;
    }
    const { schema } = context;
    const disposition = schema.dispositions[item.disposition];
    element.id = `trap-${item.guest}-${item.sequence}`;
    element.dataset.disposition = disposition;
    const happened = describe(item, context);
    setText(cells[0], `${app.n(item.time)} ns`);
    setText(cells[1], context.guestName(item.guest));
    setText(cells[2], app.t(`kind.${schema.kinds[item.kind]}`));
    setText(cells[3], causeName(context, item.cause));
    setText(cells[4], pathName(item.path, context));
    cells[4].title = pathWords(item.path, context);
    setText(cells[5], at(item, context));
    cells[3].title = cells[3].textContent ?? '';
    cells[5].title = `pc 0x${item.pc.toString(16)}`;
    row.badge.element.hidden = false;
    row.badge.set(disposition, app.t(`disposition.${disposition}`));
    setText(row.what, happened);
    row.what.title = happened;
    setText(cells[7], app.n(item.executed));
    setText(cells[8], app.n(item.cost));
  }

  /** What the text filter looks at. @param {Trap} trap */
  const rowText = (trap) => [
    context.guestName(trap.guest), app.t(`kind.${context.schema.kinds[trap.kind]}`), causeName(context, trap.cause),
    pathName(trap.path, context), at(trap, context), app.t(`disposition.${context.schema.dispositions[trap.disposition]}`),
    describe(trap, context), `0x${trap.pc.toString(16)}`,
  ].join(' ');

  // -- following and anchoring ---------------------------------------------------------------------
  const viewHeight = () => height - ROW_PX;
  const atTail = () => grid.scrollTop + grid.clientHeight >= grid.scrollHeight - ROW_PX / 2;

  function follow() {
    following = true;
    unseen = 0;
    feed.capacity = FOLLOWING_CAPACITY;
    frame.request();
    if (!app.store.running) void catchUp();
  }

  /** The first record on the screen and how far it is scrolled: what must not move. */
  function anchor() {
    for (let index = Math.floor(grid.scrollTop / ROW_PX); index < items.length; index++) {
      const item = items[index];
      if (!isGap(item)) return { key: keyOf(item), offset: grid.scrollTop - index * ROW_PX };
    }
    return null;
  }

  function refreshItems() {
    const mark = `${feed.version} ${JSON.stringify({ ...filter, dispositions: [...filter.dispositions] })} ${filter.text ? session.places.version : ''}`;
    if (mark === itemsOf) return;
    const kept = following ? null : anchor();
    itemsOf = mark;
    items = feed.items((trap) => matches(trap, filter, rowText),
      (id) => (filter.guest === null || filter.guest === id) && !restricts({ ...filter, guest: null }));
    spacer.style.height = `${items.length * ROW_PX}px`;
    setAttribute(grid, 'aria-rowcount', String(items.length + 1));
    if (kept) {
      const index = items.findIndex((item) => !isGap(item) && keyOf(item) === kept.key);
      if (index >= 0) grid.scrollTop = index * ROW_PX + kept.offset;
    }
  }

  // -- asking for records --------------------------------------------------------------------------
  /** @param {{guest?: number, before?: number, limit?: number}} which @param {'oldest' | 'newest'} drop */
  async function ask(which, drop) {
    const { reader } = app.store;
    const result = await app.query({ type: 'trace', ...which });
    if (!reader || reader !== app.store.reader) return { count: 0, first: 0 };
    const records = reader.read(result.records);
    feed.add(records, drop);
    return { count: records.length, first: Number(result.first ?? 0) };
  }

  /** The latest records without gaps: what a reader wants to see when the lab stands still. */
  async function catchUp() {
    try {
      await ask(filter.guest === null ? { limit: PAGE_RECORDS } : { guest: filter.guest, limit: PAGE_RECORDS }, 'oldest');
    } catch (error) {
      app.complain(error);
    }
    frame.request();
  }

  async function loadOlder() {
    if (loading || exhausted || feed.records.length === 0) return;
    loading = true;
    frame.request();
    /** @type {Map<number, Trap>} */
    const oldest = new Map();
    for (const trap of feed.records) if (!oldest.has(trap.guest)) oldest.set(trap.guest, trap);
    const candidates = [...oldest.values()]
      .filter((trap) => trap.sequence > 1 && (filter.guest === null || filter.guest === trap.guest) && app.store.guest(trap.guest))
      .sort((a, b) => b.position - a.position).slice(0, GUESTS_A_PAGE);
    const limit = Math.max(20, Math.ceil((restricts(filter) ? MOST_RECORDS : PAGE_RECORDS) / Math.max(1, candidates.length)));
    let found = 0;
    try {
      for (const trap of candidates) found += (await ask({ guest: trap.guest, before: trap.sequence, limit }, 'newest')).count;
      exhausted = found === 0;
    } catch (error) {
      exhausted = true;
      app.complain(error);
    }
    loading = false;
    frame.request();
  }

  /** @param {import('./feed.js').Gap} gap */
  async function loadGap(gap) {
    following = false;
    feed.capacity = READING_CAPACITY;
    try {
      await ask({ guest: gap.guest, before: gap.before, limit: Math.min(gap.gap, MOST_RECORDS) }, 'oldest');
    } catch (error) {
      app.complain(error);
    }
    frame.request();
  }

  // -- opening and the keyboard --------------------------------------------------------------------
  /** @param {Item} item */
  function activate(item) {
    if (isGap(item)) {
      void loadGap(item);
      return;
    }
    current = keyOf(item);
    if (detail.trap && keyOf(detail.trap) === current) closeDetail();
    else void detail.open(item);
    frame.request();
  }

  function closeDetail() {
    detail.close();
    grid.focus({ preventScroll: true });
    frame.request();
  }

  const indexOfCurrent = () => items.findIndex((item) => !isGap(item) && keyOf(item) === current);

  /** Where the keyboard's cursor goes on a key. @type {Record<string, (index: number) => number>} */
  const moves = {
    ArrowDown: (index) => index + 1,
    ArrowUp: (index) => (index < 0 ? items.length - 1 : index - 1),
    PageDown: (index) => index + Math.floor(viewHeight() / ROW_PX),
    PageUp: (index) => (index < 0 ? items.length : index) - Math.floor(viewHeight() / ROW_PX),
    Home: () => 0,
    End: () => items.length - 1,
  };

  /** @param {number} wanted @param {number} from */
  function moveTo(wanted, from) {
    let index = Math.max(0, Math.min(items.length - 1, wanted));
    const step = wanted >= from ? 1 : -1;
    while (items[index] && isGap(items[index])) index += step;
    const item = items[index];
    if (!item || isGap(item)) return;
    following = index === items.length - 1;
    current = keyOf(item);
    const top = index * ROW_PX;
    if (top < grid.scrollTop) grid.scrollTop = top;
    else if (top + ROW_PX > grid.scrollTop + viewHeight()) grid.scrollTop = top + ROW_PX - viewHeight();
    if (detail.trap) void detail.open(item, false);
    frame.request();
  }

  grid.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const index = indexOfCurrent();
    if (event.key === 'Enter' || event.key === ' ') {
      if (index >= 0) activate(items[index]);
    } else if (event.key === 'Escape' && detail.trap) closeDetail();
    else if (Object.hasOwn(moves, event.key) && items.length > 0) moveTo(moves[event.key](index), index);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  spacer.addEventListener('pointerdown', () => {
    holding = true;
  });
  const release = () => {
    holding = false;
    frame.request();
  };
  window.addEventListener('pointerup', release);
  window.addEventListener('pointercancel', release);
  undo.add(() => window.removeEventListener('pointerup', release), () => window.removeEventListener('pointercancel', release));
  spacer.addEventListener('click', (event) => {
    const row = /** @type {HTMLElement} */ (event.target).closest('.traps-row');
    const item = row instanceof HTMLElement ? items[Number(row.dataset.index)] : undefined;
    if (item) activate(item);
  });
  grid.addEventListener('scroll', () => {
    if (!shown) return;
    const tail = atTail();
    const isUpward = grid.scrollTop < scrolledTo;
    scrolledTo = grid.scrollTop;
    if (!holding && following !== tail && (tail || isUpward)) {
      following = tail;
      feed.capacity = tail ? FOLLOWING_CAPACITY : READING_CAPACITY;
      if (tail) unseen = 0;
    }
    if (grid.scrollTop < 8 * ROW_PX && !following) void loadOlder();
    frame.request();
  }, { passive: true });

  // -- one pass a frame ----------------------------------------------------------------------------
  function updateBar() {
    const { schema } = context;
    if (pills.childElementCount !== schema.dispositions.length) {
      pills.replaceChildren(...schema.dispositions.map((name, index) => {
        const word = app.t(`disposition.${name}`);
        const badge = pill('button', {
          type: 'button', title: app.t('traps.filter.disposition', { disposition: word }),
          onclick: () => {
            const dispositions = new Set(filter.dispositions);
            if (!dispositions.delete(index)) dispositions.add(index);
            refine({ dispositions });
          },
        });
        badge.set(name, word);
        return badge.element;
      }));
    }
    [...pills.children].forEach((each, index) => setAttribute(each, 'aria-pressed', String(filter.dispositions.has(index))));
    /** @param {string} column @returns {[string, string]} */
    const any = (column) => ['', app.t('traps.filter.any', { column })];
    const seen = [...app.store.totals.values()].flatMap((byKey) => [...byKey.values()]);
    const present = (/** @type {(total: typeof seen[number]) => number} */ of) => [...new Set(seen.map(of))].sort((a, b) => a - b);
    guest.set([any(app.t('traps.guest')), ...(app.store.document?.guests ?? []).map(({ id, name }) => /** @type {[string, string]} */ ([String(id), name]))], String(filter.guest ?? ''));
    kind.set([any(app.t('traps.kind')), ...present((total) => total.kind).map((id) => /** @type {[string, string]} */ ([String(id), app.t(`kind.${schema.kinds[id]}`)]))], String(filter.kind ?? ''));
    cause.set([any(app.t('traps.cause')), ...present((total) => total.cause).map((id) => /** @type {[string, string]} */ ([String(id), causeName(context, id)]))], String(filter.cause ?? ''));
    path.set([any(app.t('traps.path')), ...present((total) => total.path).map((id) => /** @type {[string, string]} */ ([String(id), pathName(id, context)]))], String(filter.path ?? ''));
    clear.hidden = !restricts(filter);
    const chosen = filter.guest === null ? '' : `?guest=${filter.guest}`;
    setAttribute(exporting, 'href', `/labs/${encodeURIComponent(app.lab)}/trace${chosen}`);
  }

  function update() {
    if (!shown) return;
    if (!app.store.reader) {
      state.show(app.t('panel.loading'));
      return;
    }
    if (wasRunning && !app.store.running) void catchUp();
    wasRunning = app.store.running;
    if (filter.guest !== null && !app.store.guest(filter.guest)) filter = { ...filter, guest: null };
    if (barOf !== filter || barDocument !== app.store.document || performance.now() - barAt > BAR_MS) {
      barOf = filter;
      barDocument = app.store.document;
      barAt = performance.now();
      updateBar();
    }
    chart.element.hidden = !chartWanted() || detail.trap !== null;
    setAttribute(chartToggle, 'aria-pressed', String(chartWanted()));
    refreshItems();
    if (following && !holding) grid.scrollTop = items.length * ROW_PX;
    const scrolled = following && !holding ? Math.max(0, items.length * ROW_PX - viewHeight()) : grid.scrollTop;
    const { first, last } = visibleRows(scrolled, viewHeight(), ROW_PX, items.length);
    const epoch = `${session.places.version} ${app.i18n.language}`;
    while (pool.length < last - first) pool.push(makeRow());
    pool.forEach((row, offset) => {
      const index = first + offset;
      const used = index < last;
      if (row.element.hidden === used) row.element.hidden = !used;
      if (used) fillRow(row, index, epoch);
      else row.shown = '';
    });
    const selected = indexOfCurrent();
    const item = items[selected];
    setAttribute(grid, 'aria-activedescendant', item && !isGap(item) && selected >= first && selected < last ? `trap-${item.guest}-${item.sequence}` : null);
    const message = items.length > 0 ? null : feed.records.length > 0 ? app.t('traps.nomatch') : app.t('traps.empty');
    state.show(loading && items.length === 0 ? app.t('traps.older') : message);
    fresh.hidden = following || unseen === 0;
    setText(fresh, `↓ ${app.t('traps.new', { count: unseen })}`);
    chart.update(performance.now());
    if (restricts(filter) && items.length * ROW_PX < viewHeight() && quietLoads < 5 && !loading && !exhausted && !app.store.running) {
      quietLoads++;
      void loadOlder();
    }
  }

  const frame = onceAFrame(update);

  function restart() {
    feed.clear();
    exhausted = false;
    feed.add([...app.store.traps]);
    current = null;
    unseen = 0;
    following = true;
    if (!app.store.running) void catchUp();
    frame.request();
  }

  undo.add(
    app.store.on('keyframe', restart),
    app.store.on('traps', (traps) => {
      const added = feed.add(traps, following ? 'oldest' : 'newest');
      if (!following) unseen += added;
      frame.request();
    }),
  );
  session.named.add(frame.request);
  const sizes = new ResizeObserver(() => {
    height = grid.clientHeight;
    frame.request();
  });
  sizes.observe(grid);
  undo.add(() => session.named.delete(frame.request), () => frame.cancel(), () => chart.destroy(), () => sizes.disconnect());
  height = grid.clientHeight;
  restart();
  return {
    update,
    show: () => {
      shown = true;
      scrolledTo = 0;
    },
    hide: () => {
      shown = false;
    },
    destroy: () => undo.run(),
  };
}
