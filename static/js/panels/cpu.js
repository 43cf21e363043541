/**
 * The CPU panel: a guest's registers, CSRs with their fields, and the code around pc with its source. While the lab runs it
 * asks at most four times a second; when the lab stands still, at once. Rows are made once and changed in place.
 * "Written" and "read" are by the instruction at pc, and are marked by letter as well as by colour. Of a guest under binary
 * translation, the code can be shown beside its translation (translation.js).
 * @typedef {import('../app.js').App} App
 * @typedef {import('./format.js').Word} Word
 * @typedef {{pc: Word, x: Word[], level: number, csrs: Record<string, Word>, fields: Record<string, [string, Word | string][]>, written: number[],
 *            read: number[], instruction: string}} Registers
 * @typedef {{address: Word, encoding: number, text: string, symbol: string | null, file: string | null, line: number | null}} CodeRow
 * @typedef {{pc: Word, rows: CodeRow[], source: {file: string, line: number, first: number, lines: string[]} | null}} Code
 */
import { h, setAttribute, setText } from '../dom.js';
import { GUEST_STATES } from '../protocol.js';
import { layersOf } from '../stacks.js';
import { hex, hexWord, word } from './format.js';
import { openMemory } from './links.js';
import { button, guestPicker, stateLine, Undoing, vcpuPicker } from './parts.js';
import { poller } from './poller.js';
import { translationTable } from './translation.js';

const EVERY_MS = 250;
const CODE_ROWS = 40;

/** @param {HTMLElement} root @param {App} app @returns {import('../app.js').Panel} */
export function mountCpu(root, app) {
  const undo = new Undoing();
  let vcpu = 0;
  /** @type {bigint | null} the address that the code shows, null: around pc */
  let pinned = null;
  let asked = '';
  let shown = true;
  let beside = false;
  /** @type {Registers | null} */
  let latest = null;

  const picker = guestPicker(app);
  const vcpus = vcpuPicker(app, (chosen) => {
    vcpu = chosen;
    ask();
  });
  const levelElement = h('span.cpu-level');
  const pcElement = h('button.value-link.cpu-pc', { type: 'button', hidden: true, onclick: () => latest && openAt(latest.pc) });
  const instruction = h('code.cpu-instruction');
  const follow = button(app.t('cpu.follow'), () => {
    pinned = pinned === null && latest ? word(latest.pc) : null;
    setAttribute(follow, 'aria-pressed', String(pinned === null));
    ask();
  }, { 'aria-pressed': 'true' });
  const translate = button(app.t('cpu.translation'), () => {
    showBeside(!beside);
    ask();
  }, { 'aria-pressed': 'false', title: app.t('cpu.translation.tip') });
  const translation = translationTable(app);
  translation.element.hidden = true;
  const legend = h('span.panel-hint.cpu-legend', {}, h('span.written', {}, h('b', {}, 'W'), ` ${app.t('cpu.written')}`),
    h('span.read', {}, h('b', {}, 'R'), ` ${app.t('cpu.read')}`), ` ${app.t('cpu.legend')}`);
  const bar = h('div.panel-bar', {}, picker.element, vcpus.element, levelElement, pcElement, instruction, h('span.panel-gap'), legend, translate, follow);
  const state = stateLine(app);
  const registers = h('div.cpu-registers', { role: 'table', 'aria-label': app.t('cpu.registers') });
  const csrs = h('div.cpu-csrs');
  const code = h('div.cpu-code', { role: 'table', 'aria-label': app.t('cpu.code') });
  const source = h('div.cpu-source');
  const pane = (/** @type {string} */ name, /** @type {string} */ title, /** @type {HTMLElement} */ body) => h('section', { class: `cpu-pane ${name}` },
    h('h3', {}, title), h('div.cpu-scroll', { tabindex: '0', role: 'region', 'aria-label': title }, body));
  const sourcePane = pane('source', app.t('cpu.source'), source);
  const codePane = pane('code', app.t('cpu.code'), h('div', {}, code, translation.element));
  const content = h('div.cpu-content', {}, pane('registers', app.t('cpu.registers'), registers), pane('csrs', app.t('cpu.csrs'), csrs),
    codePane, sourcePane);
  root.append(h('div.dock-panel.cpu', {}, bar, state.element, content));

  /** Show the translation beside the code, in its place. @param {boolean} wanted */
  function showBeside(wanted) {
    beside = wanted;
    setAttribute(translate, 'aria-pressed', String(beside));
    content.classList.toggle('translating', beside);
    translation.element.hidden = !beside;
    code.hidden = beside;
    setText(/** @type {Element} */ (codePane.querySelector('h3')), app.t(beside ? 'cpu.translation' : 'cpu.code'));
  }

  /** @param {Word} address */
  function openAt(address) {
    if (app.guest !== null) openMemory(app, app.guest, address);
  }

  /** @type {{row: HTMLElement, mark: HTMLElement, value: HTMLElement}[]} */
  const registerRows = [];
  /** @param {Registers} now */
  function showRegisters(now) {
    const names = app.store.schema.registers ?? [];
    while (registerRows.length < now.x.length) {
      const index = registerRows.length;
      const mark = h('b.access', { role: 'cell' });
      const value = h('button.value-link', { type: 'button', title: app.t('detail.memory'), onclick: () => latest && openAt(latest.x[index]) });
      const row = h('div.register', { role: 'row' }, h('span.abi', { role: 'rowheader' }, names[index] ?? `x${index}`,
        h('span.index', {}, ` x${index}`)), mark, h('span', { role: 'cell' }, value));
      registerRows.push({ row, mark, value });
      registers.append(row);
    }
    const written = new Set(now.written);
    const read = new Set(now.read);
    now.x.forEach((value, index) => {
      const cells = registerRows[index];
      const text = hexWord(value);
      cells.row.classList.toggle('changed', cells.value.textContent !== '' && cells.value.textContent !== text);
      cells.row.classList.toggle('zero', word(value) === 0n);
      setText(cells.value, text);
      const access = `${read.has(index) ? 'R' : ''}${written.has(index) ? 'W' : ''}`;
      setText(cells.mark, access);
      cells.row.classList.toggle('written', written.has(index));
      cells.row.classList.toggle('read', read.has(index) && !written.has(index));
      setAttribute(cells.mark, 'title', access === '' ? null : [...access].map((one) => app.t(one === 'R' ? 'cpu.read' : 'cpu.written')).join(', '));
    });
  }

  /** @type {Map<string, {element: HTMLElement, value: HTMLElement, fields: Map<string, HTMLElement>, list: HTMLElement}>} */
  const csrRows = new Map();
  /** @param {Registers} now */
  function showCsrs(now) {
    for (const [name, row] of csrRows) {
      if (name in now.csrs) continue;
      row.element.remove();
      csrRows.delete(name);
    }
    for (const [name, value] of Object.entries(now.csrs)) {
      const fields = now.fields[name] ?? [];
      let row = csrRows.get(name);
      if (!row) {
        const valueElement = h('span.number');
        const list = h('dl.fields');
        const element = fields.length
          ? h('details.csr', {}, h('summary', {}, h('span.csr-name', { title: name }, name), valueElement), list)
          : h('div.csr', {}, h('span.csr-name', {}, name), valueElement);
        row = { element, value: valueElement, fields: new Map(), list };
        csrRows.set(name, row);
        csrs.append(element);
      }
      const text = hexWord(value);
      row.element.classList.toggle('changed', row.value.textContent !== '' && row.value.textContent !== text);
      setText(row.value, text);
      for (const [field, number] of fields) {
        let cell = row.fields.get(field);
        if (!cell) {
          cell = h('dd');
          row.list.append(h('dt', {}, field), cell);
          row.fields.set(field, cell);
        }
        setText(cell, typeof number === 'string' ? number : word(number) < 10n ? String(number) : hex(number));
      }
    }
  }

  /** `name` of `name+0x1c`. @param {string | null} symbol */
  const base = (symbol) => symbol?.split('+')[0] ?? null;

  /** @param {Code} now */
  function showCode(now) {
    const pc = word(now.pc);
    /** @type {HTMLElement[]} */
    const rows = [];
    let symbol = null;
    /** @type {HTMLElement | null} */
    let current = null;
    for (const each of now.rows) {
      if (base(each.symbol) !== symbol) {
        symbol = base(each.symbol);
        if (symbol !== null) rows.push(h('div.code-symbol', { role: 'row' }, h('span', { role: 'cell' }, `${symbol}:`)));
      }
      const here = word(each.address) === pc;
      const row = h('div.code-row', { role: 'row', class: here ? 'code-row current' : 'code-row' },
        h('span.code-mark', { role: 'cell' }, here ? '▶' : '', here && h('span.visually-hidden', {}, app.t('cpu.current'))),
        h('span.code-address', { role: 'cell' }, hex(each.address)),
        h('span.code-encoding', { role: 'cell' }, each.encoding.toString(16).padStart((each.encoding & 3) === 3 ? 8 : 4, '0')),
        h('span.code-text', { role: 'cell' }, each.text),
        h('span.code-line', { role: 'cell' }, each.line === null ? '' : `${each.file?.split('/').at(-1) ?? ''}:${each.line}`));
      rows.push(row);
      if (here) current = row;
    }
    if (rows.length === 0) rows.push(h('div', { role: 'row' }, h('span.dim', { role: 'cell' }, app.t('cpu.nocode'))));
    code.replaceChildren(...rows);
    if (pinned === null) centre(current);
    showSource(now.source);
  }

  /** @param {Code['source']} now */
  function showSource(now) {
    setText(/** @type {Element} */ (sourcePane.querySelector('h3')), now ? `${app.t('cpu.source')} · ${now.file}:${now.line}` : app.t('cpu.source'));
    if (!now) {
      source.replaceChildren(h('p.dim', {}, app.t('cpu.nosource')));
      return;
    }
    /** @type {HTMLElement | null} */
    let current = null;
    source.replaceChildren(...now.lines.map((text, index) => {
      const number = now.first + index;
      const row = h('div', { class: number === now.line ? 'source-row current' : 'source-row' },
        h('span.source-mark', {}, number === now.line ? '▶' : ''), h('span.source-number', {}, String(number)), h('code', {}, text));
      if (number === now.line) current = row;
      return row;
    }));
    centre(current);
  }

  /** Bring a row to the middle of its scroller without moving anything else. @param {HTMLElement | null} row */
  function centre(row) {
    const scroller = row?.closest('.cpu-scroll');
    if (row && scroller) scroller.scrollTop += row.getBoundingClientRect().top - scroller.getBoundingClientRect().top - scroller.clientHeight / 2 + row.offsetHeight;
  }

  const poll = poller(EVERY_MS, async () => {
    const guest = app.guest;
    if (guest === null || !shown) return;
    const at = pinned === null ? {} : { address: pinned };
    try {
      const [now, around, translated] = await Promise.all([
        app.query({ type: 'registers', guest, vcpu }),
        app.query({ type: 'code', guest, vcpu, rows: CODE_ROWS, ...at }),
        beside && !translate.hidden ? app.query({ type: 'translation', guest, vcpu, ...at }) : null,
      ]);
      if (guest !== app.guest) return;
      latest = now;
      state.show(null);
      content.hidden = false;
      const level = app.store.schema.levels[now.level];
      setText(levelElement, app.t(`level.${level.name}`));
      setAttribute(levelElement, 'data-group', level.group);
      levelElement.classList.toggle('deprivileged', level.name === 'kernel_deprivileged');
      setText(pcElement, `pc ${hexWord(now.pc)}`);
      pcElement.hidden = false;
      setText(instruction, now.instruction);
      showRegisters(now);
      showCsrs(now);
      showCode(around);
      if (translated) translation.show(translated);
    } catch (error) {
      if (guest !== app.guest) return;
      content.hidden = true;
      state.show(app.t('panel.failed', { reason: app.problemText(error) }), ask);
    }
  });

  function ask() {
    poll.request(false);
  }

  function update() {
    picker.update();
    const guest = app.guest === null ? undefined : app.store.guest(app.guest);
    bar.hidden = !guest;
    if (!guest) {
      content.hidden = true;
      state.show(app.t('panel.none'));
      return;
    }
    vcpu = Math.min(vcpu, guest.vcpus - 1);
    vcpus.update(guest.vcpus, vcpu);
    translate.hidden = layersOf(app.store.host(guest.host)).guest !== 'translated';
    if (translate.hidden && beside) showBeside(false);
    const live = app.store.live(guest.id);
    if (GUEST_STATES[live.state] === 'off') {
      content.hidden = true;
      latest = null;
      asked = '';
      state.show(app.t('cpu.off', { guest: guest.name }));
      return;
    }
    const question = `${guest.id} ${vcpu} ${app.store.position} ${app.store.running} ${live.state}`;
    if (question === asked) return;
    asked = question;
    if (!latest) state.show(app.t('panel.loading'));
    poll.request(app.store.running);
  }

  undo.add(() => poll.stop(), app.on('guest', () => {
    latest = null;
    pinned = null;
    setAttribute(follow, 'aria-pressed', 'true');
  }), app.store.on('keyframe', () => {
    asked = '';
  }));
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
