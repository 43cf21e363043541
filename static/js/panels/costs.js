/**
 * The Costs panel: what each crossing between levels is charged, from which publication, and changing it. A profile is one
 * machine that somebody measured; a figure put in place of its own holds for every stack and is marked as yours.
 * @typedef {import('../app.js').App} App
 * @typedef {{crossing: string, stacks: string[], cycles: number, source: string, note: string | null, verified: boolean}} Row
 * @typedef {{profile: string, profiles: string[], overrides: Record<string, number>, rows: Row[]}} Costs
 */
import { h } from '../dom.js';
import { button, choice, stateLine } from './parts.js';

/** What the engine takes for one crossing. */
const MOST_CYCLES = 10_000_000;

/** @param {HTMLElement} root @param {App} app @returns {import('../app.js').Panel} */
export function mountCosts(root, app) {
  /** @type {Costs | null} */
  let costs = null;
  let known = '';
  let shown = true;
  const state = stateLine(app);
  const profile = choice(app.t('costs.profile'), (value) => void set(value, costs?.overrides ?? {}));
  const reset = button(app.t('costs.reset'), () => void set(costs?.profile ?? '', {}), { 'data-action': 'costs-reset' });
  const body = h('div.costs-scroll', { tabindex: '0', role: 'region', 'aria-label': app.t('costs.title') });
  root.append(h('div.dock-panel.costs', {}, h('div.panel-bar', {}, profile.element, reset, h('span.panel-hint', {}, app.t('costs.hint'))),
    state.element, body));

  /** @param {string} chosen @param {Record<string, number>} overrides */
  async function set(chosen, overrides) {
    await app.attempt({ type: 'costs.set', profile: chosen, overrides });
    known = '';
    update();
  }

  /** @param {string} crossing @param {string} text empty: the profile's own */
  function put(crossing, text) {
    if (!costs) return;
    const overrides = { ...costs.overrides };
    delete overrides[crossing];
    if (text.trim() !== '') {
      const cycles = app.wholeNumber(text, 0, MOST_CYCLES);
      if (cycles === null) {
        draw();
        return;
      }
      overrides[crossing] = cycles;
    }
    void set(costs.profile, overrides);
  }

  async function ask() {
    try {
      costs = await app.query({ type: 'costs' });
      state.show(null);
      draw();
    } catch (error) {
      state.show(app.t('panel.failed', { reason: app.problemText(error) }), () => void ask());
    }
  }

  function draw() {
    if (!costs) return;
    const { rows, overrides } = costs;
    const focused = document.activeElement instanceof HTMLInputElement && body.contains(document.activeElement) ? document.activeElement.id : '';
    profile.set(costs.profiles.map((id) => [id, app.t(`costs.profile.${id}`)]), costs.profile);
    reset.setAttribute('aria-disabled', String(Object.keys(overrides).length === 0));
    const crossings = [...new Set(rows.map((row) => row.crossing))];
    body.replaceChildren(h('table', {}, h('thead', {}, h('tr', {}, ...['crossing', 'cycles', 'own', 'stacks', 'source']
      .map((name) => h('th', { scope: 'col' }, app.t(`costs.${name}`))))),
    ...crossings.map((crossing) => {
      const its = rows.filter((row) => row.crossing === crossing);
      const own = overrides[crossing];
      const input = h('input', {
        type: 'number', min: 0, max: MOST_CYCLES, step: 1, id: `cost-${crossing}`, value: own ?? '', placeholder: '—',
        'aria-label': app.t('costs.own.label', { crossing: app.t(`costs.crossing.${crossing}`) }),
        onchange: () => put(crossing, input.value),
      });
      return h('tbody', { 'data-crossing': crossing }, ...its.map((row, index) => h('tr', {},
        index === 0 && h('th', { scope: 'row', rowspan: its.length }, app.t(`costs.crossing.${crossing}`)),
        h('td.number', { 'data-replaced': own === undefined ? null : 'true' }, app.n(row.cycles)),
        index === 0 && h('td', { rowspan: its.length }, input),
        h('td', {}, row.stacks.map((stack) => app.t(`stack.${stack}`)).join(', ')),
        h('td', {}, row.source, row.note && h('span.dim', {}, ` ${app.t(`costs.note.${row.note}`)}`),
          !row.verified && h('span.dim', {}, ` ${app.t('costs.unverified')}`)))));
    })));
    if (focused) document.getElementById(focused)?.focus();
  }

  function update() {
    const now = JSON.stringify(app.store.document?.costs);
    if (!shown || now === known) return;
    known = now;
    void ask();
  }
  update();
  return {
    update() {
      shown = true;
      update();
    },
    hide() { shown = false; },
    destroy() { shown = false; },
  };
}
