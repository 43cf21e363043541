/**
 * One trap opened: what it was, the guest's instruction in its source, what the handler did, registers before and after
 * (derived by replay on the server), and its cost, executed and modelled apart, every crossing with its source.
 * @typedef {import('../app.js').App} App
 * @typedef {import('../records.js').TrapRecord} Trap
 * @typedef {{pc: number | bigint, x: (number | bigint)[], level: number, csrs: Record<string, number | bigint>}} Registers
 * @typedef {{instruction: string, symbol: string | null, source: {file: string, line: number, text: string} | null,
 *            before: Registers | null, after: Registers | null, changed: string[], crossings: {from: string | number, to: string | number, cycles: number, source: string,
 *            note: string | null, verified: boolean}[]}} Detail
 */
import { h } from '../dom.js';
import { at, causeName, describe, pathWords } from './describe.js';
import { button, pill } from './parts.js';
import { hex, hexWord, word } from './format.js';
import { memoryLink } from './links.js';
import { sessionOf } from './session.js';

/** They change with every instruction, whatever it does. */
const CLOCKS = new Set(['mcycle', 'minstret', 'cycle', 'instret', 'time']);

/** Kinds of trap that pass arguments in a0 to a7, x10 to x17. */
const CALLS = new Set(['syscall', 'hypercall']);
const FIRST_ARGUMENT = 10;
const ARGUMENTS = 8;

/** @param {string} title @param {...import('../dom.js').Child} children */
const section = (title, ...children) => h('section', {}, h('h4', {}, title), ...children);

/** @param {[string, import('../dom.js').Child][]} rows */
const facts = (rows) => h('dl.facts', {}, ...rows.flatMap(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]));

/** All registers as rows: name, before, after, in the order pc, x, CSRs. @param {Registers} before @param {Registers} after @param {string[]} names of x */
export function registerRows(before, after, names) {
  /** @type {{name: string, before: bigint, after: bigint, changed: boolean}[]} */
  const rows = [];
  const push = (/** @type {string} */ name, /** @type {number | bigint} */ old, /** @type {number | bigint} */ now) => {
    rows.push({ name, before: word(old), after: word(now), changed: word(old) !== word(now) });
  };
  push('pc', before.pc, after.pc);
  before.x.forEach((old, index) => push(names[index] ?? `x${index}`, old, after.x[index]));
  for (const [name, old] of Object.entries(before.csrs)) push(name, old, after.csrs[name] ?? old);
  return rows;
}

/**
 * @param {App} app
 * @param {() => void} close
 */
export function trapDetail(app, close) {
  const { context } = sessionOf(app);
  const heading = h('h3', { tabindex: '-1' });
  const body = h('div.detail-body', {});
  const element = h('aside.detail', { hidden: true }, h('header', {}, heading,
    button('×', close, { class: 'quiet square', 'aria-label': app.t('panel.close') })), body);
  element.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return;
    event.stopPropagation();
    close();
  });
  /** @type {Trap | null} */
  let shown = null;

  /** @param {Trap} trap */
  function summary(trap) {
    const { schema } = context;
    const disposition = schema.dispositions[trap.disposition];
    const badge = pill('span');
    badge.set(disposition, app.t(`disposition.${disposition}`));
    return [
      section(app.t('detail.what'), h('p.detail-what', {},
        badge.element, ' ', describe(trap, context))),
      facts([
        [app.t('traps.cause'), causeName(context, trap.cause)],
        [app.t('traps.path'), pathWords(trap.path, context)],
        [app.t('traps.at'), memoryLink(app, trap.guest, trap.pc, at(trap, context))],
        [app.t('detail.value'), memoryLink(app, trap.guest, trap.value, hex(trap.value))],
        [app.t('traps.time'), app.i18n.duration(trap.time)],
      ]),
    ];
  }

  /** @param {Trap} trap @param {Detail} detail */
  function rest(trap, detail) {
    const rows = detail.before && detail.after ? registerRows(detail.before, detail.after, context.schema.registers ?? []) : [];
    const table = (/** @type {typeof rows} */ chosen) => h('table.register-table', {},
      h('thead', {}, h('tr', {}, h('td'), h('th', { scope: 'col' }, app.t('detail.before')), h('th', { scope: 'col' }, app.t('detail.after')))),
      h('tbody', {}, ...chosen.map((row) => h('tr', { class: row.changed ? 'changed' : null },
        h('th', { scope: 'row' }, row.name, row.changed && h('span.mark', { title: app.t('detail.changed') }, ' ●',
          h('span.visually-hidden', {}, app.t('detail.changed')))),
        h('td', {}, memoryLink(app, trap.guest, row.before, hexWord(row.before))),
        h('td', {}, memoryLink(app, trap.guest, row.after, hexWord(row.after)))))));
    const changed = rows.filter((row) => row.changed && !CLOCKS.has(row.name));
    const all = h('details', {}, h('summary', {}, app.t('detail.all')));
    all.addEventListener('toggle', () => {
      if (all.open && all.childElementCount === 1) all.append(table(rows));
    });
    const { source } = detail;
    const passed = CALLS.has(context.schema.kinds[trap.kind]) ? detail.before?.x.slice(FIRST_ARGUMENT, FIRST_ARGUMENT + ARGUMENTS) ?? [] : [];
    const names = context.schema.registers ?? [];
    return [
      ...(detail.symbol ? [facts([[app.t('detail.symbol'), detail.symbol]])] : []),
      section(app.t('detail.instruction'), h('code.detail-instruction', {}, detail.instruction || '—'),
        trap.instruction !== 0 && h('span.dim', {}, ` ${app.t('detail.encoding')} ${hex(trap.instruction, (trap.instruction & 3) === 3 ? 8 : 4)}`)),
      section(app.t('detail.source'), source
        ? h('div.source-line', {}, h('span.dim', {}, `${source.file}:${source.line}`), h('code', {}, source.text))
        : h('p.dim', {}, app.t('detail.nosource'))),
      section(app.t('detail.registers'), 
        changed.length ? table(changed) : h('p.dim', {}, app.t(rows.length ? 'detail.unchanged' : 'detail.gone')), rows.length > 0 && all),
      ...(passed.length ? [section(app.t('detail.arguments'), facts(passed.map((value, index) => [
        names[FIRST_ARGUMENT + index], memoryLink(app, trap.guest, value, hex(value)),
      ])))] : []),
      section(app.t('detail.cost'),
        facts([
          [app.t('detail.executed'), app.t('detail.instructions', { count: trap.executed })],
          [app.t('detail.modelled'), app.t('detail.cycles', { count: trap.cost })],
        ]),
        detail.crossings.length
          ? h('ol.crossings', {}, ...detail.crossings.map((crossing) => h('li', {},
            h('span', {}, `${levelText(crossing.from)} → ${levelText(crossing.to)}`),
            h('span.number', {}, app.t('detail.cycles', { count: crossing.cycles })),
            h('span.dim', {}, crossing.source, crossing.note && ` ${app.t(`costs.note.${crossing.note}`)}`,
              !crossing.verified && ` ${app.t('costs.unverified')}`))))
          : h('p.dim', {}, app.t('detail.nocost'))),
    ];
  }

  /** A level by its number or its name. @param {string | number} level */
  const levelText = (level) => app.t(`level.${typeof level === 'number' ? context.schema.levels[level].name : level}`);

  return {
    element,
    get trap() {
      return shown;
    },
    /** @param {Trap} trap @param {boolean} [focus] */
    async open(trap, focus = true) {
      shown = trap;
      element.hidden = false;
      heading.textContent = app.t('detail.title', { sequence: trap.sequence, guest: context.guestName(trap.guest) });
      const seek = button(app.t('detail.seek'), () => void app.attempt({ type: 'lab.seek', position: trap.position }));
      body.replaceChildren(...summary(trap), seek, h('p.dim', { role: 'status' }, app.t('panel.loading')));
      body.scrollTop = 0;
      if (focus) heading.focus({ preventScroll: true });
      try {
        const detail = await app.query({ type: 'trace.detail', guest: trap.guest, sequence: trap.sequence });
        if (shown === trap) body.replaceChildren(...summary(trap), ...rest(trap, detail), seek);
      } catch (error) {
        if (shown === trap) {
          body.replaceChildren(...summary(trap), seek, h('p.problem', { role: 'status' }, app.problemText(error)),
            button(app.t('panel.retry'), () => void this.open(trap)));
        }
      }
    },
    close() {
      shown = null;
      element.hidden = true;
      body.replaceChildren();
    },
  };
}
